"""Results to tables, figures and one page. Everything here reads JSON and starts no model.

frames: a table's results as one tidy frame; tables: LaTeX, markdown and CSV of it; figures: the
plots; page: the report that shows all of it beside the paper.
"""
