/** Headers that requests may have. Those of objectives stand for what the body's `slo` does not say. */
import { z } from "zod"
import { SLO_BOUNDS } from "../../config/objectives.ts"
import type { Parameter } from "./operation.ts"

const MS = 1000

const OBJECTIVES = [
  { name: "ttft-ms", bounds: SLO_BOUNDS.ttftUs, what: "the time to the first token", example: 500 },
  { name: "tpot-ms", bounds: SLO_BOUNDS.tpotUs, what: "the time per output token", example: 50 },
  {
    name: "thinking-tpot-ms",
    bounds: SLO_BOUNDS.tpotUs,
    what: "the time per output token while the model thinks",
    example: 20,
  },
  {
    name: "max-gap-ms",
    bounds: SLO_BOUNDS.maxGapUs,
    what: "the longest time between two tokens",
    example: 200,
  },
]

const objectives: readonly Parameter[] = ["x-llm-d-slo-", "x-slo-"].flatMap((prefix, short) =>
  OBJECTIVES.map(({ name, bounds, what, example }) => ({
    name: `${prefix}${name}`,
    in: "header" as const,
    description:
      short === 0
        ? `Objective in milliseconds: ${what}. The body's \`slo\` is stronger.`
        : `\`x-llm-d-slo-${name}\`, shorter; that one is stronger.`,
    schema: z
      .number()
      .min(bounds.min / MS)
      .max(bounds.max / MS),
    example,
  })),
)

const header = (name: string, description: string, schema: z.ZodType = z.string()): Parameter => ({
  ...{ name, in: "header", description, schema },
})

const TENANT = z.string().regex(/^[!-~]{1,128}$/)

export const REQUEST_ID = header(
  "x-request-id",
  "Taken over as the request's id, in its answer's headers, its log line and `/v1/slo/requests`.",
  z.string().regex(/^[\w.:-]{1,128}$/),
)

/** Of whatever is scheduled. */
export const OF_SCHEDULED: readonly Parameter[] = [
  REQUEST_ID,
  ...objectives,
  header("x-llm-d-inference-objective", "Name of an SLO class of this server."),
  header(
    "x-gateway-inference-objective",
    "The same by the Gateway API's name: one that is no class of this server counts as none.",
  ),
  header(
    "x-llm-d-inference-fairness-id",
    "Name of the tenant, where the server trusts its clients to say it: by default where there are no keys.",
    TENANT,
  ),
  header(
    "x-gateway-inference-fairness-id",
    "The same by the Gateway API's name; the other one is stronger.",
    TENANT,
  ),
  header("traceparent", "W3C trace context: the request's spans are part of that trace."),
]

export const ANTHROPIC_VERSION: Parameter = {
  ...header("anthropic-version", "May be left out, else 2023-06-01 or later.", z.iso.date()),
  example: "2023-06-01",
}

export const inPath = (name: string, description: string): Parameter => ({
  ...{ name, in: "path", description, schema: z.string(), required: true },
})

export const inQuery = (name: string, description: string, schema: z.ZodType): Parameter => ({
  ...{ name, in: "query", description, schema },
})
