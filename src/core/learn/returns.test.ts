/** Which sessions are waited for. */
import { expect, test } from "vitest"
import { specOf } from "../testing.ts"
import { Returns } from "./returns.ts"

const slo = (tpotUs: number) => ({
  ttftUs: 1e6,
  ttftSlowdown: 0,
  tpotUs,
  thinkingTpotUs: tpotUs,
  maxGapUs: Infinity,
})

/** Sessions of two rounds, the second of another pace, or of another app. */
function play(
  returns: Returns,
  session: number,
  last: { app?: number; tpotUs?: number },
): [boolean, boolean] {
  returns.arrived(session)
  const first = returns.ended(specOf(0, { session, slo: slo(50_000) }))
  returns.arrived(session)
  const { app = 0, tpotUs = 50_000 } = last
  return [first, returns.ended(specOf(1, { session, app, slo: slo(tpotUs) }))]
}

test.each([{ tpotUs: 100_000 }, { app: 1 }])("rounds of a kind that nothing follows: %o", (last) => {
  const returns = new Returns()
  expect(play(returns, 0, last)).toEqual([true, true])
  for (let session = 1; session < 30; session++) play(returns, session, last)
  expect(play(returns, 30, last)).toEqual([true, false])
})

test("where every second round is followed all are waited for", () => {
  const returns = new Returns()
  for (let session = 0; session < 1000; session++) expect(play(returns, session, {})).toEqual([true, true])
})

test("what was learnt is unlearnt", () => {
  const returns = new Returns()
  const round = (session: number) => returns.ended(specOf(0, { session }))
  for (let session = 0; session < 300; session++) round(session)
  expect(round(300)).toBe(false)
  for (let n = 0; n < 200; n++) {
    returns.arrived(300)
    round(300)
  }
  expect(round(301)).toBe(true)
})

test("what has no session is no session's last", () => {
  const returns = new Returns()
  for (let n = 0; n < 300; n++) expect(returns.ended(specOf(n))).toBe(true)
})

test("a session whose rounds have several choices comes back once a round", () => {
  const returns = new Returns()
  for (let round = 0; round < 100; round++) {
    for (let choice = 0; choice < 8; choice++) expect(returns.ended(specOf(round, { session: 7 }))).toBe(true)
    returns.arrived(7)
  }
})

test("one in five that come back are waited for, fewer are not", () => {
  const likely = (returnEvery: number) => {
    const returns = new Returns()
    let answer = true
    for (let session = 0; session < 2000; session++) {
      answer = returns.ended(specOf(0, { session }))
      if (session % returnEvery === 0) returns.arrived(session)
    }
    return answer
  }
  expect(likely(4)).toBe(true)
  expect(likely(6)).toBe(false)
})

test("four rounds that were followed are believed before any is seen", () => {
  const returns = new Returns()
  const answers = Array.from({ length: 20 }, (_, session) => returns.ended(specOf(0, { session })))
  // 4 of 20 is a fifth.
  expect(answers.indexOf(false)).toBe(16)
})

test("counts are halved from time to time, so that what is new weighs more", () => {
  const returns = new Returns()
  let session = 0
  /** Rounds that nothing follows until their sessions are no longer waited for. */
  const untilGivenUp = (followed: number) => {
    for (let i = 0; i < followed; i++) {
      returns.ended(specOf(0, { session }))
      returns.arrived(session++)
    }
    let rounds = 0
    while (returns.ended(specOf(0, { session: session++ }))) rounds++
    return rounds
  }
  // Never halved it would take four times as many as came back.
  expect(untilGivenUp(5000)).toBeLessThan(600)
})

test("of ten thousand sessions that are away, the return of the one that left first is not noticed any more", () => {
  /** Rounds that are still waited for after two of their kind, one of which came back after `others` left. */
  const waitedFor = (back: number, others: number) => {
    const returns = new Returns()
    const end = (session: number, tpotUs: number) => returns.ended(specOf(0, { session, slo: slo(tpotUs) }))
    for (const session of [0, 1]) end(session, 1)
    for (let session = 2; session < 2 + others; session++) end(session, 2)
    returns.arrived(back)
    let rounds = 0
    while (end(100_000 + rounds, 1)) rounds++
    return rounds
  }
  // Four of 20 are believed, or five of 25.
  expect([waitedFor(0, 9_998), waitedFor(0, 9_999), waitedFor(1, 9_999)]).toEqual([19, 14, 19])
})

test("past a thousand kinds of rounds it starts afresh", () => {
  const returns = new Returns()
  const round = (session: number, tpotUs: number) => returns.ended(specOf(0, { session, slo: slo(tpotUs) }))
  let session = 0
  for (let n = 0; n < 30; n++) round(session++, 1)
  expect(round(session++, 1)).toBe(false)
  for (let kind = 2; kind <= 1000; kind++) round(session++, kind)
  expect(round(session++, 1)).toBe(false)
  round(session++, 1001)
  expect(round(session++, 1)).toBe(true)
})
