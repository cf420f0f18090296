"""`python -m llm_proxy` is the `llm-proxy` command."""

from llm_proxy.cli import main

if __name__ == "__main__":
    main()
