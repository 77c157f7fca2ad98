/** Shortest templates that say how calls are written, one for each way. */
export const TEMPLATES: Record<string, string> = {
  hermes: '{# <tool_call>{"name": …, "arguments": …} #}',
  "qwen-coder": "{# <tool_call><function=…><parameter=…> #}",
  mistral: "{# [TOOL_CALLS]…[ARGS] #}",
  "mistral-list": "{# [TOOL_CALLS] #}",
  deepseek: "{# <｜tool▁calls▁begin｜> #}",
  "deepseek-old": "{# <｜tool▁calls▁begin｜>```json #}",
  llama: '{# {"name": function name, "parameters": dictionary #}',
  harmony: "{# <|start|><|channel|><|message|> #}",
}
/** What follows it: messages, and nothing of tools. */
export const MESSAGES = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
