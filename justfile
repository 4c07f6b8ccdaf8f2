# Tasks of the project; `just` is in every package manager, and each line runs as well without it.

# Install for development
setup:
    pip install -e '.[dev]'
    pre-commit install

# The whole suite, as CI runs it
test:
    pytest

# Lint, format, types
lint:
    ruff check .
    ruff format --check .
    mypy

# The site of the docs, on http://127.0.0.1:8000
docs:
    python benchmarks/tables.py
    mkdocs serve

# All that CI asks for
check: lint test
