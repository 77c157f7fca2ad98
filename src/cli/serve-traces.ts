/** Traces of a server's requests, where they are asked for: the packages for that are loaded only then. */
import type { Service } from "../serve/service.ts"
import type { Reporter } from "./reporter.ts"
import { packageVersion } from "./version.ts"

/** The answer sends what is left, and ends. */
export async function traceTo(
  endpoint: string,
  { explainer }: Service,
  reporter: Reporter,
): Promise<() => Promise<void>> {
  const { OtlpTraces } = await import("../tracing/otlp.ts")
  const warn = (message: string) => reporter.log.warn(message)
  const traces = new OtlpTraces({ endpoint, version: packageVersion(), warn })
  explainer.tracedBy((records, { operation, model, headers }) =>
    traces.ended(records, { operation, model }, headers),
  )
  return () => traces.close()
}
