/** A few seeds of the simulation fuzz; `npm run sim:fuzz -- --seeds N` plays more. */
import { expect, test } from "vitest"
import { POLICY_NAMES } from "../core/policy/index.ts"
import { fuzz, MOST_BROKEN_SHARE } from "./fuzz.ts"

test.each(POLICY_NAMES)(
  "%s: tokens conserved, KV within bounds, no request lost",
  (policy) => {
    for (let seed = 1; seed <= 8; seed++) expect(fuzz(seed, policy).failure).toBeNull()
  },
  60_000,
)

test("firm promises under an exact timer are kept, but for a few", () => {
  let [promises, broken] = [0, 0]
  for (let seed = 20; seed < 60; seed++) {
    const run = fuzz(seed, "slos-serve")
    expect(run.failure).toBeNull()
    promises += run.promises
    broken += run.broken
  }
  expect(promises).toBeGreaterThan(500)
  expect(broken / promises).toBeLessThan(MOST_BROKEN_SHARE)
}, 60_000)
