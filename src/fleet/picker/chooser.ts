/** The port of what decides: which endpoint takes a request, now or not. Flow control (flow-control.ts) holds what no
 * endpoint takes yet, and asks again. */
import type { Ask } from "./ask.ts"

/** "ip:port", as Envoy names a host. */
export type Endpoint = string

export interface Chooser {
  /** Endpoints that it may be asked about from now on; what it knows of those that stay is kept. */
  setEndpoints(endpoints: readonly Endpoint[]): void
  /** Which of `among` takes the request, the best first; empty: it should wait. Endpoints that take it nonetheless
   * once it cannot wait any longer: `anywhere`. */
  choose(ask: Ask, among: readonly Endpoint[], nowUs: number): readonly Endpoint[]
  /** Where a request does least harm that will be late anyway; empty: nowhere. */
  anywhere(ask: Ask, among: readonly Endpoint[], nowUs: number): readonly Endpoint[]
  /** It was sent there; what becomes of it is told to the answer. */
  sent(ask: Ask, endpoint: Endpoint, nowUs: number): Sent
  /** Unloaded time to the first token, µs: what a TTFT given as a slowdown multiplies. */
  zeroLoadUs(ask: Ask, among: readonly Endpoint[]): number
  /** Its first token would be late wherever it went. */
  hopeless(ask: Ask, dueUs: number, among: readonly Endpoint[], nowUs: number): boolean
  /** Called when an endpoint may have got room. */
  onRoom: (() => void) | null
  close(): void
}

/** What an endpoint makes of a request. */
export interface Sent {
  /** Another endpoint of those picked served it. */
  servedBy(endpoint: Endpoint): void
  /** Tokens that were seen to come; events of a stream, where nothing better is known. */
  tokens(count: number, nowUs: number): void
  /** Counts that the endpoint itself gave. */
  usage(promptTokens: number, cachedTokens: number, outputTokens: number): void
  /** Once. `failed`: the endpoint could not be reached, or broke off. */
  ended(how: "done" | "cancelled" | "failed", nowUs: number): void
}
