"""The doctor: whether a machine can run a study (rule `check`). `node` and `here` gather facts,
`judge` decides from them."""
