/** Errors a user can do something about. One table says, for every code, the HTTP status, OpenAI's error type,
 * the message and what to do; the CLI prints them as one line (exit code 2), HTTP as a 4xx/5xx body. */

export interface UserErrorOptions {
  status?: number
  code?: string | null
  /** The request field or option that is wrong. */
  param?: string | null
  /** OpenAI's error type. */
  type?: string
  /** When it may be worth to come back, ms. */
  retryMs?: number | null
  cause?: unknown
}

/** Something the reader can put right. Never shown with a stack trace. */
export class UserError extends Error {
  override readonly name = "UserError"
  readonly status: number
  readonly code: string | null
  readonly param: string | null
  readonly type: string
  readonly retryMs: number | null

  constructor(message: string, options: UserErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.status = options.status ?? 400
    this.code = options.code ?? null
    this.param = options.param ?? null
    this.type = options.type ?? typeOf(this.status)
    this.retryMs = options.retryMs ?? null
  }
}

function typeOf(status: number): string {
  if (status === 429) return "rate_limit_error"
  return status >= 500 ? "server_error" : "invalid_request_error"
}

interface ErrorEntry {
  status: number
  /** `{name}` is filled from the values. */
  message: string
  /** What the reader can do. Appended to the message. */
  remedy: string
}

/** Every coded error. Codes that OpenAI also uses have OpenAI's words, because clients match on them. */
export const ERRORS = {
  context_length_exceeded: {
    status: 400,
    message:
      "This model's maximum context length is {limit} tokens. However, you requested {requested} tokens " +
      "({prompt} in the messages, {completion} in the completion).",
    remedy: "Please reduce the length of the messages or completion.",
  },
  missing_api_key: {
    status: 401,
    message: "This server wants an API key.",
    remedy:
      "Send the header `authorization: Bearer <key>` (or `x-api-key`); the operator of the server gives keys out.",
  },
  invalid_api_key: {
    status: 401,
    message: "Incorrect API key provided.",
    remedy: "Check the key in the header `authorization: Bearer <key>`.",
  },
  class_not_allowed: {
    status: 403,
    message: "Your API key may not use the SLO class `{name}`.",
    remedy: "It may use: {available}. Name one of them (`slo.class`, the model's name).",
  },
  objectives_not_allowed: {
    status: 403,
    message: "This request asks for latency objectives of its own, which it may not.",
    remedy: "Leave `slo`, `vllm_xargs` and the SLO headers out, or name an SLO class.",
  },
  objective_too_tight: {
    status: 403,
    message: "This request asks for {name} of {asked}; your API key has {least} at the least.",
    remedy: "Ask for more time.",
  },
  host_not_allowed: {
    status: 403,
    message: "This server does not answer for the host `{host}`.",
    remedy: "Use its own address, or start it with --allowed-host {host}.",
  },
  rate_limit_exceeded: {
    status: 429,
    message: "Rate limit reached for the API key `{name}`: {limit} {what} per minute.",
    remedy: "Retry in {seconds} s, or after the time in the Retry-After header.",
  },
  token_limit_too_small: {
    status: 429,
    message:
      "This request may come to {asked} tokens (the prompt, and `max_tokens` of each answer), and the API key `{name}` has {limit} per minute.",
    remedy: "Lower max_tokens or shorten the prompt.",
  },
  model_not_found: {
    status: 404,
    message: "The model `{model}` does not exist or you do not have access to it.",
    remedy: "This server has: {available}.",
  },
  invalid_json: {
    status: 400,
    message: "We could not parse the JSON body of your request: {detail}.",
    remedy: "The body must be one JSON object in UTF-8.",
  },
  invalid_utf8: {
    status: 400,
    message: "The body of your request is not valid UTF-8.",
    remedy: "Encode it as UTF-8.",
  },
  unsupported_media_type: {
    status: 415,
    message: "Unsupported content type `{type}`.",
    remedy: "Send the header `content-type: application/json`.",
  },
  unsupported_content_encoding: {
    status: 415,
    message: "Unsupported content encoding `{encoding}`.",
    remedy: "Known ones are {known}, one at a time.",
  },
  invalid_content_encoding: {
    status: 400,
    message: "The body of your request is not what its content-encoding says: {detail}.",
    remedy: "Compress it again, or send it as it is.",
  },
  body_too_large: {
    status: 413,
    message: "The body of your request is larger than {limit} bytes.",
    remedy: "Shorten it, or start the server with a larger --body-limit.",
  },
  too_many_long_prompts: {
    status: 429,
    message: "The server is overloaded: other long prompts wait to be read, as many as may.",
    remedy: "Retry after the time in the Retry-After header.",
  },
  too_many_large_bodies: {
    status: 429,
    message: "Other requests with large bodies are being received, and hold as much memory as all may.",
    remedy: "Retry after the time in the Retry-After header.",
  },
  request_timeout: {
    status: 408,
    message: "The request was not received in full within {seconds} s.",
    remedy: "Send the body without pauses.",
  },
  headers_too_large: {
    status: 431,
    message: "The headers of your request are too large.",
    remedy: "Shorten them.",
  },
  invalid_http: { status: 400, message: "This is not a valid HTTP/1.1 request.", remedy: "" },
  invalid_value: { status: 400, message: "{message}", remedy: "" },
  invalid_json_schema: { status: 400, message: "{message}", remedy: "" },
  too_many_schemas: {
    status: 429,
    message: "The server is overloaded: {why}.",
    remedy: "Retry after the time in the Retry-After header.",
  },
  invalid_slo: {
    status: 400,
    message: "Invalid '{name}': {reason}.",
    remedy: "",
  },
  slo_class_not_found: {
    status: 400,
    message: "There is no SLO class `{name}`.",
    remedy: "This server has: {available}.",
  },
  chat_template_error: {
    status: 400,
    message: "The model's chat template does not accept these messages: {detail}",
    remedy: "",
  },
  unknown_url: {
    status: 404,
    message: "Unknown request URL: {method} {url}.",
    remedy: "This server has: {available}.",
  },
  request_not_found: {
    status: 404,
    message: "There is no request `{id}` among the last {kept} answers, or it is another tenant's.",
    remedy:
      "GET /v1/slo/requests has those that are known; the header x-request-id of a response has its id.",
  },
  response_not_found: {
    status: 404,
    message: "Response with id '{id}' not found.",
    remedy:
      "It was not stored (store: false), or it was deleted, or later ones took its place, or it is another tenant's: " +
      "send the whole conversation as input.",
  },
  response_item_not_found: {
    status: 404,
    message: "Invalid '{param}': item with id '{id}' not found.",
    remedy: "Its response was not stored, or is not any more: send the item itself.",
  },
  method_not_allowed: {
    status: 405,
    message: "Not allowed to {method} on {url}.",
    remedy: "Use {allowed}.",
  },
  not_supported_here: {
    status: 501,
    message: "{what} is not supported by this server: {why}.",
    remedy: "{instead}",
  },
  queue_full: {
    status: 429,
    message:
      "The server is overloaded: its queue takes {limit} requests, every answer counted, and {taken} are live{share}; " +
      "this one asks for {choices}.",
    remedy: "Retry after the time in the Retry-After header.",
  },
  queue_too_small: {
    status: 429,
    message:
      "This request asks for {choices} answers (n for each prompt), and the server's queue takes {limit} in all.",
    remedy: "Ask for fewer at a time, or start the server with a larger --max-queue.",
  },
  not_ready: { status: 503, message: "The server is not ready: {detail}.", remedy: "GET /ready says when." },
  shutting_down: {
    status: 503,
    message: "The server is shutting down.",
    remedy: "Send the request to another replica or retry later.",
  },
  engine_down: {
    status: 503,
    message: "The engine is down: {detail}.",
    remedy: "Retry after the time in the Retry-After header, or send the request to another replica.",
  },
  no_replica: {
    status: 503,
    message: "No replica can serve this request just now: {detail}.",
    remedy: "Retry after the time in the Retry-After header.",
  },
  engine_failed: {
    status: 500,
    message: "The engine could not compute this request: {detail}.",
    remedy: "Retry; the server's log has the details.",
  },
  port_in_use: {
    status: 400,
    message: "port {port} on {host} is already in use",
    remedy: "stop the other program or choose another with {option}",
  },
  cannot_listen: {
    status: 400,
    message: "cannot listen on {host}:{port} ({detail})",
    remedy: "check --host and {option}",
  },
  config_not_readable: {
    status: 400,
    message: "cannot read the config {path} ({detail})",
    remedy: "check the path; docs/config.md has a complete example",
  },
  config_invalid: {
    status: 400,
    message: "{path}: {detail}",
    remedy: "docs/config.md explains every field",
  },
} as const satisfies Record<string, ErrorEntry>

export type ErrorCode = keyof typeof ERRORS

/** A coded error from the table. `values` fill the message's `{placeholders}`. */
export function userError(
  code: ErrorCode,
  values: Record<string, string | number> = {},
  options: { param?: string | null; retryMs?: number; cause?: unknown } = {},
): UserError {
  const entry: ErrorEntry = ERRORS[code]
  const text = entry.remedy === "" ? entry.message : `${entry.message}${joiner(entry.message)}${entry.remedy}`
  const message = text.replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? `{${name}}`))
  return new UserError(message, { status: entry.status, code, ...options })
}

/** CLI messages are one lower-case line (`what; remedy`), API messages are sentences. */
function joiner(message: string): string {
  return message.endsWith(".") ? " " : "; "
}
