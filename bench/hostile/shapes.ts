/** Bodies that are made to hurt: each shape at any size. */

export interface Shape {
  name: string
  url: "/v1/chat/completions" | "/v1/completions"
  /** About so many bytes. */
  body: (bytes: number) => string
}

const CHAT = "/v1/chat/completions"
const TEXT = "/v1/completions"
const HELLO = '"messages":[{"role":"user","content":"hi"}],"max_tokens":1'

/** As many as fill the bytes. */
function list(bytes: number, entry: string | ((index: number) => string)): string {
  if (typeof entry === "string")
    return Array(Math.max(1, Math.floor(bytes / (entry.length + 1))))
      .fill(entry)
      .join()
  const entries: string[] = []
  for (let length = 0; length < bytes; length += entries.at(-1)!.length + 1)
    entries.push(entry(entries.length))
  return entries.join()
}

const nested = (bytes: number, open: string, close: string, inside = "") => {
  const levels = Math.max(1, Math.floor(bytes / (open.length + close.length)))
  return open.repeat(levels) + inside + close.repeat(levels)
}
const schema = (inside: string) =>
  `{${HELLO},"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":${inside}}}}`
const message = (content: string) => `{"max_tokens":1,"messages":[{"role":"user","content":${content}}]}`
const text = (bytes: number, piece: string) =>
  `"${piece.repeat(Math.max(1, Math.floor(bytes / Buffer.byteLength(piece))))}"`
const chat = (name: string, body: Shape["body"]): Shape => ({ name, url: CHAT, body })
const plain = (name: string, body: Shape["body"]): Shape => ({ name, url: TEXT, body })

export const SHAPES: readonly Shape[] = [
  chat("wrong messages", (bytes) => `{"messages":[${list(bytes, "[]")}]}`),
  chat("numbers for messages", (bytes) => `{"messages":[${list(bytes, "1")}]}`),
  chat(
    "empty messages",
    (bytes) => `{"max_tokens":1,"messages":[${list(bytes, '{"role":"user","content":""}')}]}`,
  ),
  chat("messages without anything", (bytes) => `{"messages":[${list(bytes, "{}")}]}`),
  chat(
    "most messages, filled up",
    (bytes) =>
      `{"max_tokens":1,"messages":[${Array(4096).fill(`{"role":"user","content":"${"a ".repeat(bytes / 8192 - 20)}"}`)}]}`,
  ),
  chat(
    "most messages",
    () => `{"max_tokens":1,"messages":[${Array(4096).fill('{"role":"user","content":""}')}]}`,
  ),
  chat("wrong parts", (bytes) => message(`[${list(bytes, '{"type":"image_url"}')}]`)),
  chat("empty parts", (bytes) => message(`[${list(bytes, '{"type":"text","text":""}')}]`)),
  chat("wrong calls", (bytes) => `{"messages":[{"role":"assistant","tool_calls":[${list(bytes, "{}")}]}]}`),
  chat(
    "deep arguments",
    (bytes) =>
      `{"max_tokens":1,"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"a","arguments":${JSON.stringify(nested(bytes, "[", "]"))}}}]}]}`,
  ),
  chat(
    "wide arguments",
    (bytes) =>
      `{"max_tokens":1,"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"a","arguments":"[${list(bytes, "[]")}]"}}]}]}`,
  ),
  chat(
    "tools",
    (bytes) => `{${HELLO},"tools":[${list(bytes, '{"type":"function","function":{"name":"a"}}')}]}`,
  ),
  chat("wrong tools", (bytes) => `{${HELLO},"tools":[${list(bytes, "0")}]}`),
  chat(
    "a tool's properties",
    (bytes) =>
      `{${HELLO},"tools":[{"type":"function","function":{"name":"a","parameters":{"type":"object","properties":{${list(bytes, (i) => `"p${i}":{"type":"string"}`)}}}}}],"tool_choice":"required"}`,
  ),
  chat("required names", (bytes) =>
    schema(`{"type":"object","required":[${list(bytes, (i) => `"n${i}"`)}]}`),
  ),
  chat("an enum", (bytes) => schema(`{"enum":[${list(bytes, (i) => `"n${i}"`)}]}`)),
  chat("a deep constant", (bytes) => schema(`{"const":${nested(bytes, "[", "]")}}`)),
  chat("a constant as deep as may be", () => schema(`{"const":${nested(300, "[", "]")}}`)),
  chat("nested alternatives", (bytes) => schema(nested(bytes, '{"anyOf":[', "]}", '{"type":"null"}'))),
  chat("properties", (bytes) =>
    schema(`{"type":"object","properties":{${list(bytes, (i) => `"p${i}":{}`)}}}`),
  ),
  chat("wrong biases", (bytes) => `{${HELLO},"logit_bias":{${list(bytes, (i) => `"x${i}":1`)}}}`),
  chat("biases", (bytes) => `{${HELLO},"logit_bias":{${list(bytes, (i) => `"${i}":1`)}}}`),
  chat("stops", (bytes) => `{${HELLO},"stop":[${list(bytes, '"a"')}]}`),
  chat("long stops", (bytes) => `{${HELLO},"stop":[${list(16 * 1000, text(980, "a"))},${text(bytes, "a")}]}`),
  chat(
    "template variables",
    (bytes) => `{${HELLO},"chat_template_kwargs":{${list(bytes, (i) => `"v${i}":[]`)}}}`,
  ),
  chat("unknown fields", (bytes) => `{${HELLO},${list(bytes, (i) => `"u${i}":0`)}}`),
  chat("one field, again and again", (bytes) => `{${list(bytes, '"max_tokens":1')},${HELLO}}`),
  chat("__proto__", (bytes) => `{${HELLO},"metadata":[${list(bytes, '{"__proto__":{"n":4}}')}]}`),
  chat("arrays that do not end", (bytes) => `{"messages":${"[".repeat(bytes)}`),
  chat("objects that do not end", (bytes) => '{"messages":'.repeat(bytes / 12)),
  chat("deep, and closed", (bytes) => `{"messages":${nested(bytes, "[", "]")}}`),
  chat("a long text", (bytes) => message(text(bytes, "The quick brown fox jumps. "))),
  chat("control tokens", (bytes) => message(text(bytes, "<|im_end|>"))),
  chat(
    "control tokens, meant",
    (bytes) => `{"parse_special":true,${message(text(bytes, "<|im_end|>")).slice(1)}`,
  ),
  chat("less-than signs", (bytes) => message(text(bytes, "<"))),
  chat("spaces", (bytes) => message(text(bytes, " "))),
  chat("one letter", (bytes) => message(text(bytes, "a"))),
  chat("smileys", (bytes) => message(text(bytes, "😀"))),
  chat("line breaks", (bytes) => message(text(bytes, "\\n"))),
  chat("escapes", (bytes) => message(text(bytes, "\\u4e00"))),
  chat("lone surrogates", (bytes) => message(text(bytes, "\\ud800"))),
  chat("zeros", (bytes) => message(text(bytes, "\\u0000"))),
  chat("a long role", (bytes) => `{"max_tokens":1,"messages":[{"role":${text(bytes, "r")}}]}`),
  chat("a long model", (bytes) => `{${HELLO},"model":${text(bytes, "m")}}`),
  chat("a long session", (bytes) => `{${HELLO},"slo":{"session":${text(bytes, "s")}}}`),
  chat("a long name of a field", (bytes) => `{${HELLO},${text(bytes, "f")}:0}`),
  chat("a long number", (bytes) => `{${HELLO},"seed":${"9".repeat(bytes)}}`),
  chat("many numbers", (bytes) => `{${HELLO},"x":[${list(bytes, "1.234567890123456789e-300")}]}`),
  chat("white space", (bytes) => `{${" ".repeat(bytes)}${HELLO}}`),
  chat("no JSON", (bytes) => "x".repeat(bytes)),
  plain(
    "a long prompt",
    (bytes) => `{"max_tokens":1,"prompt":${text(bytes, "The quick brown fox jumps. ")}}`,
  ),
  plain("control tokens in a prompt", (bytes) => `{"max_tokens":1,"prompt":${text(bytes, "<|im_end|>")}}`),
  plain("token ids", (bytes) => `{"max_tokens":1,"prompt":[${list(bytes, "1")}]}`),
  plain("wrong token ids", (bytes) => `{"prompt":[${list(bytes, "-1.5")}]}`),
  plain("empty prompts", (bytes) => `{"prompt":[${list(bytes, '""')}]}`),
  plain("empty lists", (bytes) => `{"prompt":[${list(bytes, "[]")}]}`),
  plain("prompts of each kind", (bytes) => `{"prompt":[${list(bytes, (i) => (i % 2 ? "[1]" : '"a"'))}]}`),
  plain(
    "most prompts, filled up",
    (bytes) => `{"max_tokens":1,"prompt":[${Array(128).fill(text(bytes / 128 - 4, "a "))}]}`,
  ),
  plain(
    "most prompts, of a kilobyte",
    () => `{"max_tokens":1,"prompt":[${Array(128).fill(text(1000, "a "))}]}`,
  ),
]
