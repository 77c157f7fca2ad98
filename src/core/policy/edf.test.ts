/** Earliest due first, with and without giving up what is lost. */
import { expect, test } from "vitest"
import { DEFAULT_OPTIONS } from "../options.ts"
import { Played } from "../replica-testing.ts"
import { COST, LIMITS } from "../testing.ts"
import { POLICIES, POLICY_NAMES } from "./index.ts"

const slo = (ttftMs: number) => ({
  ttftUs: ttftMs * 1000,
  ttftSlowdown: 0,
  maxGapUs: Infinity,
  tpotUs: 1e6,
  thinkingTpotUs: 1e6,
})

/** 300 tokens that cannot be on time are due before 300 that can. Which prompts the first batch of 40 ms has. */
function first(policy: "edf" | "edf-drop") {
  const limits = { ...LIMITS, minChunkTokens: 1 }
  const played = new Played({ policy, limits, options: { margin: 0, maxBatchUs: 40_000 } })
  played.arrives(1, { promptTokens: 300, slo: slo(500) })
  played.arrives(2, { promptTokens: 300, slo: slo(30) })
  const items = played.step().items.map(({ id, tokens }) => [id, tokens])
  return { items, demoted: played.of("demoted").map(({ id }) => id) }
}

test("goes by deadline, however hopeless; or leaves the hopeless for later", () => {
  expect(first("edf")).toEqual({
    items: [
      [2, 300],
      [1, 50],
    ],
    demoted: [],
  })
  expect(first("edf-drop")).toEqual({ items: [[1, 300]], demoted: [2] })
})

/** A batch in which a request with an SLO decodes while a prompt without one waits. */
function besideBestEffort(policy: "edf" | "edf-drop" | "slos-serve") {
  const played = new Played({ policy, options: { margin: 0 } })
  played.arrives(1, { promptTokens: 64, slo: slo(1000) })
  played.step()
  played.arrives(2, { promptTokens: 900, tier: "bestEffort" })
  return played
}

test.each(["edf", "edf-drop", "slos-serve"] as const)(
  "%s: work without an SLO may stretch a batch only a little while others decode, and fills it when alone",
  (policy) => {
    const played = besideBestEffort(policy)
    // The next token is due in a second, but whatever arrives now waits for the batch's end.
    expect(played.step()).toMatchObject({ items: [{ id: 1 }, { id: 2 }], predictedUs: 20_000 })
    const alone = new Played({ policy, options: { margin: 0 } })
    alone.arrives(2, { promptTokens: 900, tier: "bestEffort" })
    expect(alone.step().predictedUs).toBe(56_200)
  },
)

test.each(["edf", "edf-drop"] as const)("%s drafts where speculation is on and pays", (policy) => {
  const cost = { ...COST, pieces: [{ step: 20_000, tokens: 10 }] }
  const drafts = (speculation: "on" | "off") => {
    const played = new Played({ policy, cost, options: { speculation } })
    played.arrives(1, { slo: slo(1000) })
    played.step()
    return played.step().items[0]!.draft
  }
  expect(drafts("on")).toBeGreaterThan(3)
  expect(drafts("off")).toBe(0)
})

test("every policy is called what the table calls it", () => {
  for (const name of POLICY_NAMES) expect(POLICIES[name](DEFAULT_OPTIONS).name).toBe(name)
})
