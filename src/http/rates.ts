/** What API keys have left of their requests and tokens a minute, counted and told in headers as OpenAI does. */
import type { FastifyReply, FastifyRequest } from "fastify"
import type { GenerationRequest } from "../serve/intake.ts"
import { type ApiKey, checkAllowed, rateRefusal } from "../serve/key-ring.ts"
import type { RateCounter } from "../serve/rate-window.ts"
import type { Service, ServiceHost } from "../serve/service.ts"
import { spend } from "../serve/spending.ts"
import type { AnswerSink } from "../text/answer.ts"

/** Counts a request of a key that has so many a minute: at once, or with a promise where it is counted elsewhere. Throws UserError for
 * one too many. */
export function takeRequest(
  host: ServiceHost,
  request: FastifyRequest,
  reply: FastifyReply,
): Promise<void> | undefined {
  const { apiKey } = request
  request.rateHeaders = {}
  if (apiKey === null || request.method !== "POST") return undefined
  const { requests } = apiKey
  const nowMs = performance.now()
  const went = (slot: number | null) => {
    tellRates(request, reply, apiKey)
    if (requests === null || slot !== null) return
    countRefusal(host.service, request)
    throw rateRefusal(apiKey.config.name, "requests", requests, requests.waitMs(1, nowMs))
  }
  const taken = requests === null ? null : requests.take(1, nowMs)
  if (taken instanceof Promise) return taken.then(went)
  went(taken)
  return undefined
}

/** Lets `serve` answer, where the request's key allows what it asks for, within the key's tokens a minute. Throws UserError. */
export async function withinRates(
  { service, request, reply }: { service: Service; request: FastifyRequest; reply: FastifyReply },
  requests: readonly GenerationRequest[],
  sinks: readonly AnswerSink[],
  serve: (sinks: readonly AnswerSink[]) => Promise<void>,
): Promise<void> {
  const { apiKey } = request
  for (const { slo } of requests) checkAllowed(apiKey, service.tenancy.objectives, slo)
  const { defaultMaxTokens } = service
  try {
    await spend(apiKey, { requests, sinks, defaultMaxTokens }, (counted) => {
      tellRates(request, reply, apiKey)
      return serve(counted)
    })
  } catch (error) {
    if (isRateRefusal(error)) countRefusal(service, request)
    tellRates(request, reply, apiKey)
    throw error
  }
}

const RATE_CODES = ["rate_limit_exceeded", "token_limit_too_small"]
const isRateRefusal = (error: unknown) => RATE_CODES.includes((error as { code?: string }).code ?? "")

function countRefusal(service: Service | null, { tenant }: FastifyRequest): void {
  if (service !== null) service.front.figures.of(tenant).limited++
}

/** Streams take them from the request: their responses are written by hand. */
function tellRates(request: FastifyRequest, reply: FastifyReply, key: ApiKey | null): void {
  if (key === null) return
  Object.assign(request.rateHeaders, ratesOf("requests", key.requests), ratesOf("tokens", key.tokens))
  if (!reply.sent) reply.headers(request.rateHeaders)
}

function ratesOf(what: "requests" | "tokens", window: RateCounter | null): Record<string, string> {
  if (window === null) return {}
  const nowMs = performance.now()
  const used = window.used(nowMs)
  const resetMs = used === 0 ? 0 : window.waitMs(window.limit, nowMs)
  return {
    [`x-ratelimit-limit-${what}`]: String(window.limit),
    [`x-ratelimit-remaining-${what}`]: String(Math.max(0, Math.floor(window.limit - used))),
    [`x-ratelimit-reset-${what}`]: `${(resetMs / 1000).toFixed(3)}s`,
  }
}
