/** SLOs among vLLM's extra arguments: what is written is read as the same SLO, what cannot be meant is refused by name. */
import fc from "fast-check"
import { describe, expect, test } from "vitest"
import { parseSloClasses } from "../config/file.ts"
import { defaultSloClasses } from "../config/slo-classes.ts"
import { othersArgs, readClientSloArgs, readSloArgs, writeOrigin, writeSloArgs } from "./slo-args.ts"
import { resolveSlo, type SloSource } from "./slo-resolve.ts"

const classes = defaultSloClasses()
const resolve = (source: Partial<SloSource>) =>
  resolveSlo(classes, { headers: {}, modelClass: null, ...source })

const ms = fc.option(fc.double({ min: 1, max: 3_600_000, noNaN: true }))
const sloBody = fc.record({
  ttft_ms: ms,
  tpot_ms: ms,
  thinking_tpot_ms: ms,
  max_gap_ms: ms,
  class: fc.option(fc.constantFrom(...classes.byName.keys())),
})
const slowdown = fc.option(fc.double({ min: 1, max: 10_000, noNaN: true }))

describe("what a gateway writes", () => {
  test("is read as the SLO that it resolved, whatever that was", () => {
    const tiers = fc.constantFrom("auto" as const, "default" as const, "flex" as const)
    fc.assert(
      fc.property(sloBody, slowdown, tiers, (slo, times, serviceTier) => {
        const body = slo.ttft_ms === null ? { ...slo, ttft_slowdown: times } : slo
        const resolved = resolve({ slo: body, serviceTier })
        const args = writeSloArgs(resolved)
        for (const value of Object.values(args)) expect(["string", "number"]).toContain(typeof value)
        expect(resolve({ args: readSloArgs(JSON.parse(JSON.stringify(args))) })).toEqual(resolved)
      }),
    )
  })

  test("has the objectives in ms, and those alone that there are", () => {
    const inline =
      "classes:\n  a: {ttft: 5x, tpot: 20ms, thinking_tpot: 10ms, max_gap: 1s}\n  b: {tpot: 1s}\n"
    const own = parseSloClasses(inline, "test")
    const written = (name: string) =>
      writeSloArgs(resolveSlo(own, { slo: { class: name }, headers: {}, modelClass: null }))
    expect(written("a")).toEqual({
      ...{ slo_class: "a", slo_tier: "slo", slo_ttft_slowdown: 5, slo_tpot_ms: 20 },
      ...{ slo_thinking_tpot_ms: 10, slo_max_gap_ms: 1000 },
    })
    expect(written("b")).toEqual({ slo_class: "b", slo_tier: "slo", slo_tpot_ms: 1000 })
    expect(writeSloArgs(resolve({ slo: { class: "best_effort" } }))).toEqual({
      ...{ slo_class: "best_effort", slo_tier: "best_effort" },
    })
  })

  test("says whose it is and when it came", () => {
    expect(writeOrigin({ tenant: "alice", session: "s", arrivedUnixMs: 12.4 })).toEqual({
      ...{ slo_tenant: "alice", slo_session: "s", slo_arrived_unix_ms: 12 },
    })
    expect(writeOrigin({ tenant: "default", session: null, arrivedUnixMs: 1 })).toEqual({
      slo_arrived_unix_ms: 1,
    })
  })
})

describe("what is read", () => {
  test("others' arguments are none of ours", () => {
    expect(readSloArgs({ mine: [1, "a"], slow: true, slo_tpot_ms: 5 })).toEqual({ slo_tpot_ms: 5 })
    expect(othersArgs({ mine: [1, "a"], slo_tpot_ms: 5, slo_typo: 1 })).toEqual({ mine: [1, "a"] })
    expect(othersArgs(null)).toEqual({})
  })

  test.each([
    [
      { slo_tpott_ms: 5 },
      /^Invalid 'vllm_xargs\.slo_tpott_ms': is not a known argument \(known: slo_class, /,
    ],
    [{ slo_ttft_ms: "100" }, /^Invalid 'vllm_xargs\.slo_ttft_ms': must be a number of milliseconds\.$/],
    [{ slo_ttft_ms: Number.NaN }, /slo_ttft_ms': must be a number/],
    [{ slo_ttft_slowdown: [5] }, /slo_ttft_slowdown': must be a number\.$/],
    [{ slo_class: "" }, /slo_class': must not be empty/],
    [{ slo_class: 3 }, /slo_class': must be a text/],
    [{ slo_session: "s".repeat(257) }, /slo_session': has 256 characters at most/],
    [{ slo_tier: "flex" }, /slo_tier': must be "slo" or "best_effort"/],
    [{ slo_arrived_unix_ms: "now" }, /slo_arrived_unix_ms': must be a number of milliseconds since 1970/],
  ])("%j is refused", (args, message) => {
    expect(() => readSloArgs(args)).toThrow(message)
    expect(() => readSloArgs(args)).toThrow(expect.objectContaining({ status: 400, code: "invalid_value" }))
  })

  test("a client says neither whose it is nor when it came", () => {
    expect(readClientSloArgs(null)).toEqual({})
    expect(readClientSloArgs({ slo_session: "s" })).toEqual({ slo_session: "s" })
    for (const args of [{ slo_tenant: "bob" }, { slo_arrived_unix_ms: 5 }])
      expect(() => readClientSloArgs(args)).toThrow(
        `'vllm_xargs.${Object.keys(args)[0]}': is set by the server`,
      )
  })
})
