#compdef llm-proxy

_llm_proxy_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _LLM_PROXY_COMPLETE=complete_zsh llm-proxy)
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _llm_proxy_completion "$@"  # from fpath: this first call has to complete already
else
  compdef _llm_proxy_completion llm-proxy
fi
