/** Every failure in the shape in which Anthropic's clients expect it. */
import type { UserError } from "../../errors.ts"

const TYPES: Readonly<Record<number, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  408: "timeout_error",
  413: "request_too_large",
  429: "rate_limit_error",
  503: "overloaded_error",
}

/** The field stands beside what Anthropic's errors have. */
export function anthropicError(error: UserError, requestId: string): object {
  const { status, message, code, param, retryMs } = error
  const type = TYPES[status] ?? (status >= 500 ? "api_error" : "invalid_request_error")
  return {
    type: "error",
    error: { type, message, param, details: code === null ? null : { error_code: code } },
    request_id: requestId,
    ...(retryMs !== null && { metrics: { expected_wait_ms: Math.round(retryMs) } }),
  }
}
