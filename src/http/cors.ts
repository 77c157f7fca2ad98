/** Web pages of other origins may call the API where its operator says so (`--cors-origin`). */
import cors from "@fastify/cors"
import type { FastifyInstance } from "fastify"
import { ANY_ORIGIN } from "../config/origins.ts"

/** What a page's scripts may read of a response, besides its body. */
const EXPOSED = [
  ...["x-request-id", "retry-after", "retry-after-ms", "x-should-retry"],
  ...["x-llm-d-request-dropped-reason", "www-authenticate", "allow"],
]
/** A browser asks again after so long. */
const PREFLIGHT_SECONDS = 600

/** `corsOrigins`: as browsers write them, or ANY_ORIGIN; none: pages of other origins may not. Where there are any they may change. Keys come in a header
 * that scripts set themselves, so no credentials of the browser are asked for. */
export function registerCors(app: FastifyInstance, live: { readonly corsOrigins: readonly string[] }): void {
  if (live.corsOrigins.length === 0) return
  app.register(cors, {
    origin: (_origin, decided) => decided(null, allowed(live.corsOrigins)),
    methods: ["GET", "HEAD", "POST"],
    exposedHeaders: EXPOSED,
    maxAge: PREFLIGHT_SECONDS,
    strictPreflight: false,
  })
}

function allowed(origins: readonly string[]): string | string[] | false {
  if (origins.includes(ANY_ORIGIN)) return ANY_ORIGIN
  return origins.length === 0 ? false : [...origins]
}
