"""Tables, verdicts, figures and the page, from result files; never imports torch."""
