"""What judges and draws: public runs and their audits."""
