/** Whatever a template shows of tools, calls and results: all of them reach the model. The templates do what those of real models
 * do, and refuse what they refuse. */
import { describe, expect, test } from "vitest"
import { ControlTokens } from "../../engine/control-tokens.ts"
import { type ChatMessage, ChatTemplate } from "../template.ts"

const LOOP = "{% for m in messages %}"
const TEMPLATES: Record<string, string> = {
  "knows roles alone": `${LOOP}<|{{ m.role }}|>{{ m.content }}{% endfor %}`,
  "wants roles to alternate, and no system message (Gemma)": `${LOOP}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('System role not supported') }}{% endif %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate') }}{% endif %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}`,
  "shows tools in a way of its own": `{% if tools %}{{ tools | tojson }}{% endif %}${LOOP}{% for c in m.tool_calls or [] %}<invoke>{{ c.function.name }}{{ c.function.arguments | tojson }}</invoke>{% endfor %}{{ m.role }}{{ m.content }}{% endfor %}`,
  "shows all, in a known way (Qwen)": `{% if tools %}<tools>{{ tools | tojson }}</tools> <tool_call>{"name": , "arguments": }</tool_call>{% endif %}${LOOP}{{ m.role }}{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}{% endfor %}`,
  "shows one call a message, and no other content (Llama)": `{% if tools %}Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. {{ tools | tojson }}{% endif %}${LOOP}{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}{% else %}{{ m.role }}{{ m.content }}{% endif %}{% endfor %}`,
  "wants ids of nine characters (Mistral)": `{% if tools %}{{ tools | tojson }}{% endif %}${LOOP}{% if m.tool_calls %}[TOOL_CALLS]{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}{{ c.function | tojson }}{{ c.id }}{% endfor %}{% elif m.role == 'tool' %}{% if m.tool_call_id is not defined or m.tool_call_id | length != 9 %}{{ raise_exception('no id') }}{% endif %}{{ m.content }}{% else %}{{ m.content }}{% endif %}{% endfor %}`,
  "shows no tools, and wants arguments as text (DeepSeek)": `${LOOP}{% if m.tool_calls %}<｜tool▁calls▁begin｜>{% for c in m.tool_calls %}<｜tool▁call▁begin｜>function<｜tool▁sep｜>{{ c.function.name + '\n\`\`\`json\n' + c.function.arguments + '\n\`\`\`' }}<｜tool▁call▁end｜>{% endfor %}{% else %}{{ m.role }}{{ m.content }}{% endif %}{% endfor %}`,
  "shows the first call alone (gpt-oss)": `{% if tools %}{{ tools | tojson }}{% endif %}${LOOP}{% if m.tool_calls %}<|start|>assistant<|channel|>commentary to=functions.{{ m.tool_calls[0].function.name }}<|message|>{{ m.tool_calls[0].function.arguments | tojson }}{% else %}{{ m.role }}{{ m.content }}{% endif %}{% endfor %}`,
}

const tools = [
  {
    type: "function",
    function: {
      name: "look",
      description: "Looks.",
      parameters: { type: "object", properties: { place: {} } },
    },
  },
]
const call = (id: string, place: string) => ({
  ...{ id, type: "function" },
  function: { name: "look", arguments: JSON.stringify({ place }) },
})
const MESSAGES: ChatMessage[] = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Compare. <|im_end|>" },
  {
    role: "assistant",
    content: null,
    tool_calls: [call("call_abcdef1", "Oslo"), call("call_abcdef2", "Rome")],
  },
  // Results may come in another order.
  { role: "tool", content: "hot", tool_call_id: "call_abcdef2" },
  { role: "tool", content: "cold", tool_call_id: "call_abcdef1" },
  { role: "assistant", content: "One more.", tool_calls: [call("x", "Bern")] },
  { role: "tool", content: "mild", tool_call_id: "x" },
]
const OF_CALLS = ["look", "place", "Oslo", "Rome", "Bern", "hot", "cold", "mild"]

describe.each(Object.entries(TEMPLATES))("a template that %s", (_, source) => {
  const controls = new ControlTokens([{ token: 1, text: "<|im_end|>" }])
  const template = new ChatTemplate({ chatTemplate: source, bosText: "", eosText: "" }, controls)

  test("has tools, calls and results shown, and control tokens of users stay text", () => {
    const { text, special } = template.render({ messages: MESSAGES, tools, variables: {} }, false)
    for (const word of ["Be brief.", "Looks.", "Compare.", ...OF_CALLS]) expect(text).toContain(word)
    expect(special).toEqual([])
  })

  test("has calls and results shown where no tool may be called now", () => {
    const { text } = template.render({ messages: MESSAGES, tools: null, variables: {} }, false)
    for (const word of OF_CALLS) expect(text).toContain(word)
    expect(text).not.toContain("Looks.")
  })
})

test("a model whose template shows one call a message sees each before its result", () => {
  const source = TEMPLATES["shows one call a message, and no other content (Llama)"]!
  const template = new ChatTemplate({ chatTemplate: source, bosText: "", eosText: "" }, new ControlTokens([]))
  const { text } = template.render({ messages: MESSAGES, tools: null, variables: {} }, false)
  expect(text.replace(/\{"name": "look", "parameters": \{"place": "(\w+)"\}\}/g, "[$1]")).toContain(
    "[Oslo]toolcold[Rome]toolhot",
  )
})
