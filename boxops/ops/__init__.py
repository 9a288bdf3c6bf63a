"""The public functions, a module per family. Each picks the binding for the arrays it was given."""
