/** What must hold of the account of any request's time, whatever happened to it. */
import { assert } from "../core/assert.ts"
import type { Account, Outcome } from "../core/protocol.ts"
import { TIME_PARTS } from "../core/time-account.ts"

const SLOW = TIME_PARTS.indexOf("slow")
const sumOf = (parts: readonly number[]) => parts.reduce((sum, us) => sum + us, 0)

/** Throws with `whose` where parts do not add up to the time that they are of, or one cannot be. */
export function auditAccount({ account, ...outcome }: Outcome, whose: string): void {
  assert(account !== undefined, `${whose} has no account of its time`)
  const { parts, toFirst } = account
  const latencyUs = outcome.finishedUs - outcome.arrivalUs
  assert(sumOf(parts) === latencyUs, `${whose} took ${latencyUs} us, and its parts ${sumOf(parts)}`)
  auditParts(parts, whose)
  if (toFirst !== null) {
    assert(
      sumOf(toFirst) === outcome.firstTokenUs - outcome.arrivalUs,
      `the parts of the TTFT of ${whose} do not add up`,
    )
    auditParts(toFirst, `the TTFT of ${whose}`)
  }
  auditMiss(account, outcome, whose)
}

function auditMiss({ miss, needs }: Account, outcome: Omit<Outcome, "account">, whose: string): void {
  if (miss === null) return
  const { ttftUs, firstTokenUs, arrivalUs, attained } = outcome
  assert(!attained && miss.lateUs > 0, `${whose} missed nothing`)
  auditParts(miss.parts, `what made a token of ${whose} late`)
  if (miss.objective !== "ttft") return
  assert(
    miss.lateUs === firstTokenUs - arrivalUs - ttftUs,
    `the first token of ${whose} was late by another time`,
  )
  assert(
    sumOf(miss.parts) === ttftUs + miss.lateUs,
    `the parts of a late first token of ${whose} do not add up`,
  )
  assert(needs.ttftUs === ttftUs + miss.lateUs, `${whose} would have been kept with another TTFT`)
}

/** Only the time beyond what was predicted may be less than nothing. */
function auditParts(parts: readonly number[], whose: string): void {
  for (const [i, us] of parts.entries())
    assert(Number.isInteger(us) && (us >= 0 || i === SLOW), `${whose}: ${TIME_PARTS[i]} took ${us} us`)
}
