/** The plain ChatML chat template, for models that bring none of their own: the generated and the fake one. */
export const CHATML_TEMPLATE = [
  "{%- for message in messages -%}",
  "{{- '<|im_start|>' + message.role + '\\n' -}}",
  "{%- if message.content -%}{{- message.content -}}{%- endif -%}",
  "{%- if message.tool_calls -%}{{- message.tool_calls | tojson -}}{%- endif -%}",
  "{{- '<|im_end|>\\n' -}}",
  "{%- endfor -%}",
  "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}",
].join("")
