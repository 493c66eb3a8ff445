"""What a condition may say, for people."""

HELP = """\
A condition compares columns with ==, !=, <, <=, >, >=, in [..], is None, joins with and, or, not,
and may calculate with + - * /, abs(x), length(text), lower(text), contains(text, "part"),
starts_with(..), ends_with(..), matches(text, "regular expression"), coalesce(x, 0).
A tool's column is called tool.column, or column alone where that is clear."""
