/** Which errors routes have. */
import type { ErrorCode } from "../../errors.ts"

export const OF_ALL: readonly ErrorCode[] = ["invalid_http", "host_not_allowed", "headers_too_large"]
/** Where keys are on. */
export const OF_KEYS: readonly ErrorCode[] = ["missing_api_key", "invalid_api_key"]
/** Of what a key may ask for: nowhere else. */
export const OF_LIMITED_KEYS: readonly ErrorCode[] = [
  ...(["class_not_allowed", "rate_limit_exceeded", "token_limit_too_small"] as const),
]

export const OF_MODEL: readonly ErrorCode[] = ["not_ready", "shutting_down"]

export const OF_BODY: readonly ErrorCode[] = [
  ...(["invalid_json", "invalid_utf8", "invalid_value", "request_timeout"] as const),
  ...(["invalid_content_encoding", "unsupported_content_encoding", "unsupported_media_type"] as const),
  ...(["body_too_large", "too_many_large_bodies"] as const),
  ...OF_MODEL,
]

/** Of prompts that become tokens. */
export const OF_PROMPT: readonly ErrorCode[] = [
  ...OF_BODY,
  ...(["model_not_found", "context_length_exceeded", "too_many_long_prompts", "not_supported_here"] as const),
]

const OF_QUEUE: readonly ErrorCode[] = ["queue_full", "queue_too_small", "no_replica"]
const OF_SLO: readonly ErrorCode[] = [
  ...(["invalid_slo", "slo_class_not_found"] as const),
  ...(["objectives_not_allowed", "objective_too_tight"] as const),
  ...OF_LIMITED_KEYS,
]

/** Of prompts that are computed. */
export const OF_COMPUTING: readonly ErrorCode[] = [
  ...OF_PROMPT,
  ...OF_SLO,
  ...OF_QUEUE,
  ...(["engine_down", "engine_failed"] as const),
]
export const OF_GENERATION: readonly ErrorCode[] = [
  ...OF_COMPUTING,
  ...(["invalid_json_schema", "too_many_schemas"] as const),
]
export const OF_CHAT: readonly ErrorCode[] = [...OF_GENERATION, "chat_template_error"]
