"""OpenAI's protocols: Responses, chat completions and hosted agents, as OpenAI and other servers implement them."""
