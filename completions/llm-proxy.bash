_llm_proxy_completion() {
    local IFS=$'
'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   _LLM_PROXY_COMPLETE=complete_bash $1 ) )
    return 0
}

complete -o default -F _llm_proxy_completion llm-proxy
