"""What is judged about the paper, and from what."""
