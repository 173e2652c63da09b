"""Language models: loading them, asking them, scoring what they say."""
