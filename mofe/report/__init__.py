"""Tables, figures and one page from results. Everything here reads JSON and logs, and no models.

frames: a table's results as one tidy frame; tables: the frame as LaTeX, Markdown and CSV; figures:
the plots, and sources: what they are drawn from; page: the report, which compares all of it with
the paper.
"""
