/** What the picker says to Envoy, message by message. */
import type { UserError } from "../../errors.ts"
import {
  type CommonResponse,
  type HeaderMutation,
  OVERWRITE,
  type ProcessingResponse,
  type Struct,
} from "./wire.ts"

/** Header and metadata key that name the endpoint picked, and the namespace that the metadata is in. */
export const DESTINATION = "x-gateway-destination-endpoint"
export const DESTINATION_NAMESPACE = "envoy.lb"

/** Why a request was not sent anywhere; llm-d's words. */
export type DropReason =
  | "rejected-saturated"
  | "rejected-no-endpoints"
  | "rejected-ttl-expired"
  | "rejected-shutting-down"

/** Larger pieces of a body are refused by some data planes (64 KiB). */
const PIECE_BYTES = 62_000

/** Nothing is changed. */
const UNCHANGED: { response: CommonResponse } = { response: {} }
export const CONTINUE_REQUEST_HEADERS: ProcessingResponse = { requestHeaders: UNCHANGED }
export const CONTINUE_REQUEST_BODY: ProcessingResponse = { requestBody: UNCHANGED }
export const CONTINUE_REQUEST_TRAILERS: ProcessingResponse = { requestTrailers: {} }
export const CONTINUE_RESPONSE_HEADERS: ProcessingResponse = { responseHeaders: UNCHANGED }
export const CONTINUE_RESPONSE_BODY: ProcessingResponse = { responseBody: UNCHANGED }
export const CONTINUE_RESPONSE_TRAILERS: ProcessingResponse = { responseTrailers: {} }

export function setHeaders(headers: Readonly<Record<string, string>>): HeaderMutation {
  const entries = Object.entries(headers)
  return {
    setHeaders: entries.map(([key, value]) => ({
      header: { key, rawValue: Buffer.from(value) },
      appendAction: OVERWRITE,
    })),
  }
}

/** The metadata by which Envoy's load balancer finds the host, as `endpoints` has it: "ip:port,ip:port", best first. */
export function destinationMetadata(endpoints: string): Struct {
  const inner: Struct = { fields: { [DESTINATION]: { stringValue: endpoints } } }
  return { fields: { [DESTINATION_NAMESPACE]: { structValue: inner } } }
}

/** A body in pieces, as FULL_DUPLEX_STREAMED wants it. `last`: no trailers follow. */
export function bodyPieces(body: Buffer, last: boolean): CommonResponse[] {
  const pieces: CommonResponse[] = []
  for (let at = 0; at === 0 || at < body.length; at += PIECE_BYTES) {
    const end = Math.min(body.length, at + PIECE_BYTES)
    const endOfStream = last && end === body.length
    pieces.push({ bodyMutation: { streamedResponse: { body: body.subarray(at, end), endOfStream } } })
  }
  return pieces
}

/** An answer that no endpoint sees, in OpenAI's error shape. `reason`: it was dropped for lack of room, and may come back. */
export function refusal(
  error: UserError,
  reason: DropReason | null,
  retryMs: number | null,
): ProcessingResponse {
  const { message, type, param, code, status } = error
  const headers: Record<string, string> = { "content-type": "application/json; charset=utf-8" }
  if (reason !== null) headers["x-llm-d-request-dropped-reason"] = reason
  if (retryMs !== null) {
    headers["retry-after"] = String(Math.max(1, Math.ceil(retryMs / 1000)))
    headers["retry-after-ms"] = String(Math.ceil(retryMs))
  }
  const body = Buffer.from(JSON.stringify({ error: { message, type, param, code } }))
  const details = `slos_serve_${(reason ?? code ?? "refused").replace(/-/g, "_")}`
  return { immediateResponse: { status: { code: status }, headers: setHeaders(headers), body, details } }
}
