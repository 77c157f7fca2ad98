/** The same requests, read by this server and by the middleware inside vLLM: slo-cases.json has what either must make of
 * them, and plugins/vllm/tests/test_slo_cases.py is the other half. */
import { expect, test } from "vitest"
import { defaultSloClasses } from "../config/slo-classes.ts"
import { readClientSloArgs, readSloArgs, SLO_ARG_NAMES, type SloArgs } from "./slo-args.ts"
import cases from "./slo-cases.json" with { type: "json" }
import { resolveSlo, type ServiceTier, type SloBody } from "./slo-resolve.ts"

interface Case {
  headers: Record<string, string>
  body: { slo?: SloBody | null; vllm_xargs?: Record<string, unknown>; service_tier?: ServiceTier }
  /** The same request in arguments alone. */
  arguments?: SloArgs
  /** What is wrong with it. */
  param?: string
}

const classes = defaultSloClasses()

function resolve({ headers, body }: Case) {
  const args = readClientSloArgs(body.vllm_xargs)
  return resolveSlo(classes, {
    headers,
    slo: body.slo,
    args,
    serviceTier: body.service_tier,
    modelClass: null,
  })
}

test.each(cases as Case[])("%j", (given) => {
  const args = given.arguments
  if (args !== undefined) {
    const asTold = resolveSlo(classes, { headers: {}, args: readSloArgs({ ...args }), modelClass: null })
    expect(resolve(given)).toEqual(asTold)
  } else expect(() => resolve(given)).toThrow(expect.objectContaining({ param: given.param }))
})

test("each argument that a client may give is in a case", () => {
  const seen = new Set((cases as Case[]).flatMap((one) => Object.keys(one.arguments ?? {})))
  expect(SLO_ARG_NAMES.filter((name) => !seen.has(name))).toEqual(["slo_tenant", "slo_arrived_unix_ms"])
})
