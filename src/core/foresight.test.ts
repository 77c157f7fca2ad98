/** What in-flight items should come to, on a request itself and on the line. */
import { describe, expect, test } from "vitest"
import type { Airborne } from "./flight.ts"
import { Foresight } from "./foresight.ts"
import { KvAccount } from "./kv/account.ts"
import type { BatchItem } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"
import { LIMITS, liveOf } from "./testing.ts"

const item = (position: number, tokens: number, sample: boolean, draft = 0): BatchItem => ({
  ...{ id: 1, position, tokens, sample, draft },
})
const stateOf = ({ computed, output, dueUs, paceDueUs, firstTokenUs, lastTokenUs }: LiveRequest) => ({
  ...{ computed, output, dueUs, paceDueUs, firstTokenUs, lastTokenUs },
})

describe("a request foreseen", () => {
  test("is as it will be if its token comes then, and is not judged", () => {
    for (const maxGapUs of [Infinity, 30_000]) {
      const changes = { slo: { ...liveOf(1).spec.slo, maxGapUs } }
      const [foreseen, real] = [liveOf(1, changes), liveOf(1, changes)]
      real.emit(1, -1, 1_300_000, () => {})
      real.computed = 100
      foreseen.foresee(item(0, 100, true), 1_300_000)
      expect(stateOf(foreseen)).toEqual(stateOf(real))
      expect([real.violated, foreseen.violated]).toEqual([true, false])
      real.emit(1, -1, 1_320_000, () => {})
      real.computed = 101
      foreseen.foresee(item(100, 1, true), 1_320_000)
      expect(stateOf(foreseen)).toEqual(stateOf(real))
      expect(foreseen.decoding).toBe(true)
    }
  })

  test("says whether a token in the air should be late, until it is as it was", () => {
    const request = liveOf(1)
    const { dueUs } = request
    request.foresee(item(0, 100, true), dueUs)
    expect(request.foreseenLate).toBe(false)
    request.foresee(item(100, 1, true), request.dueUs + 1)
    request.foresee(item(101, 1, true), 0)
    expect(request.foreseenLate).toBe(true)
    request.recall()
    expect(request.foreseenLate).toBe(false)
    // A piece of the prompt yields nothing that could be late.
    request.foresee(item(0, 50, false), dueUs + 1)
    expect(request.foreseenLate).toBe(false)
  })

  test("is as it was afterwards", () => {
    const request = liveOf(1)
    request.emit(1, -1, 400_000, () => {})
    request.computed = 100
    const before = stateOf(request)
    request.foresee(item(100, 1, true, 3), 500_000)
    request.foresee(item(104, 1, true), 600_000)
    expect(stateOf(request)).not.toEqual(before)
    request.recall()
    expect(stateOf(request)).toEqual(before)
  })

  test("whose KV the decision has taken has lost it afterwards, too", () => {
    const request = liveOf(1)
    request.computed = 40
    request.foresee(item(40, 20, false), 1000)
    expect(request.computed).toBe(60)
    request.computed = 0
    request.recall()
    expect(request.computed).toBe(0)
  })

  test("is taken to have all its drafts, but to be ahead by the sure token only", () => {
    const request = liveOf(1)
    request.emit(1, -1, 1_000_000, () => {})
    request.computed = 100
    request.foresee(item(100, 1, true, 3), 1_050_000)
    expect([request.computed, request.output, request.surelyOutput]).toEqual([104, 5, 2])
    expect(request.dueUs).toBe(1_200_000)
  })

  test("owes its last token, even where the engine computes more than it may produce", () => {
    const request = liveOf(1, { maxOutputTokens: 3 })
    request.emit(1, -1, 0, () => {})
    request.computed = 100
    request.foresee(item(100, 1, true, 7), 0)
    request.foresee(item(108, 1, true, 7), 0)
    expect([request.output, request.computed, request.known]).toEqual([3, 102, 103])
  })
})

describe("the line foreseen", () => {
  const kv = new KvAccount(LIMITS)
  for (const id of [1, 2, 4]) kv.attach(id, [], -1, null)

  function flightOf(request: LiveRequest, sample = true): Airborne {
    request.inAir++
    const shape = { tokens: 0, sequences: 0, passes: 0, fastPairs: 0, slowPairs: 0, outputs: 0, specSteps: 0 }
    return {
      ...{
        number: 1,
        dropped: new Map(),
        requests: [request],
        preemptions: [request.preemptions],
        kind: "mixed" as const,
        shape,
        tookTokens: 0,
        takes: new Map(),
      },
      ...{
        items: [{ ...item(0, 100, sample), id: request.id }],
        tookOffUs: 490,
        predictedUs: 10,
        endsUs: 500,
        failed: false,
      },
    }
  }

  test("leaves out what ends in the air, what waits, and what has lost its KV there", () => {
    const [ends, goesOn, lost, waits, fresh] = [
      liveOf(1, { maxOutputTokens: 1 }),
      liveOf(2),
      liveOf(3),
      liveOf(5, { waitsForGrammar: true }),
      liveOf(6),
    ]
    const flight = [ends, goesOn, lost].map((request) => flightOf(request))
    const foresight = new Foresight(kv, false)
    const all = [ends, goesOn, lost, waits, fresh]
    expect(foresight.begin(flight, all, 0)).toEqual([goesOn, fresh])
    expect(all.map(({ gone }) => gone)).toEqual([true, false, true, true, false])
    expect(goesOn.firstTokenUs).toBe(500)
    foresight.end()
    expect(all.some(({ gone, foreseen }) => gone || foreseen)).toBe(false)
    expect(goesOn.output).toBe(0)
  })

  test("for later leaves out only what ends in the air", () => {
    const [ends, lost, waits] = [
      liveOf(1, { maxOutputTokens: 1 }),
      liveOf(3),
      liveOf(5, { waitsForGrammar: true }),
    ]
    const flight = [ends, lost].map((request) => flightOf(request))
    const foresight = new Foresight(kv, false)
    expect(foresight.begin(flight, [ends, lost, waits], 0, true)).toEqual([lost, waits])
    foresight.end()
  })

  test("a batch that should have landed lands now", () => {
    const request = liveOf(2)
    const foresight = new Foresight(kv, false)
    foresight.begin([flightOf(request)], [request], 900)
    expect(request.firstTokenUs).toBe(900)
    foresight.end()
  })

  test("leaves out those whose tokens the engine will not know when it schedules", () => {
    const [first, second, half] = [liveOf(1), liveOf(2), liveOf(4)]
    const flight = [flightOf(first), flightOf(second), flightOf(half, false)]
    const begun = (tokenLag: number, later = false) => {
      const foresight = new Foresight(kv, false, tokenLag)
      const line = [...foresight.begin(flight, [first, second, half], 0, later)]
      foresight.end()
      return line
    }
    expect(begun(1)).toEqual([first, second, half])
    expect(begun(2)).toEqual([first, half])
    expect(begun(3)).toEqual([half])
    expect(begun(9)).toEqual([half])
    expect(begun(9, true)).toEqual([first, second, half])
    expect([first, second, half].some(({ gone }) => gone)).toBe(false)
  })

  test("a replica that only prefills does not plan past the first token", () => {
    const [done, half] = [liveOf(1), liveOf(2)]
    const flight = [flightOf(done), flightOf(half, false)]
    const foresight = new Foresight(kv, true)
    expect(foresight.begin(flight, [done, half], 0)).toEqual([half])
    foresight.end()
  })

  test("a batch that failed with another before it, and items that are written off, come to nothing", () => {
    const [failed, unknown] = [liveOf(2), liveOf(4)]
    const flight = [
      { ...flightOf(failed), failed: true },
      { ...flightOf(unknown), preemptions: [-1] },
    ]
    const foresight = new Foresight(kv, false)
    foresight.begin(flight, [failed, unknown], 0)
    expect([failed.output, unknown.output]).toEqual([0, 0])
    foresight.end()
  })

  test("of an item whose KV is lost meanwhile the token comes, and nothing else", () => {
    const lost = liveOf(4)
    const flight = [flightOf(lost)]
    lost.preemptions++
    const foresight = new Foresight(kv, false)
    foresight.begin(flight, [lost], 0)
    expect([lost.output, lost.computed]).toEqual([1, 0])
    foresight.end()
    expect([lost.output, lost.computed]).toEqual([0, 0])
  })
})
