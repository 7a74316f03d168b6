"""Run by IPython before a chapter: figures are drawn for the book's pages (drawn.py), and figures and tables carry their data.

The data are text/csv beside the picture, what is drawn: panel, series, x, y. build.py writes it into the book. The notebook's
code is the same.
"""


def _for_the_book():
    import csv
    import io

    from IPython import get_ipython
    from IPython.core.formatters import BaseFormatter, HTMLFormatter
    from traitlets import ObjectName, Unicode

    # both by name: what is not imported yet cannot be registered, and pyplot's own set-up unregisters

    class Page(HTMLFormatter):
        def __call__(self, shown):
            if (type(shown).__module__, type(shown).__name__) != ("matplotlib.figure", "Figure"):
                return super().__call__(shown)
            from drawn import html

            return html(shown)

    class Data(BaseFormatter):
        format_type = Unicode("text/csv")
        print_method = ObjectName("_repr_csv_")

        def __call__(self, shown):
            kind = type(shown).__name__ if type(shown).__module__.startswith(("matplotlib", "pandas")) else ""
            tables = {"DataFrame": lambda table: table.to_csv(), "Styler": lambda table: table.data.to_csv()}
            return (tables | {"Figure": drawn}).get(kind, lambda other: None)(shown)

    def points(ax):
        """(series, x, y) of all that is drawn in the data's coordinates: lines, points, bars; meshes by cell."""
        for line in ax.lines:
            if line.get_transform().contains_branch(ax.transData):
                yield from ((line.get_label(), x, y) for x, y in zip(*line.get_data(), strict=True))
        for patch in ax.patches:
            if hasattr(patch, "get_height") and hasattr(patch, "get_x") and not hasattr(patch, "get_boxstyle"):
                yield patch.get_label(), patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height()
        for collection in ax.collections:
            values = collection.get_array()
            if hasattr(collection, "get_coordinates"):
                yield from ((f"row {i}", j, v) for i, row in enumerate(values) for j, v in enumerate(row))
            else:
                yield from ((collection.get_label(), x, y) for x, y in collection.get_offsets())

    def drawn(figure):
        text = io.StringIO()
        rows = [
            (ax.get_title() or ax.get_ylabel() or number, str(series).removeprefix("_"), x, y)
            for number, ax in enumerate(figure.axes)
            for series, x, y in points(ax)
        ]
        csv.writer(text, lineterminator="\n").writerows([("panel", "series", "x", "y"), *rows])
        return text.getvalue() if rows else None

    display = get_ipython().display_formatter
    display.formatters |= {"text/html": Page(parent=display), "text/csv": Data(parent=display)}
    display.formatters["image/svg+xml"].enabled = False  # JupyterLab's own picture of a figure


_for_the_book()
del _for_the_book
