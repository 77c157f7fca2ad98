/** The live requests, sorted into the kinds of work that batches are made of. */
import { expect, test } from "vitest"
import { Random } from "../../random.ts"
import type { LiveRequest } from "../request.ts"
import { liveOf } from "../testing.ts"
import { sortByDue } from "./due-order.ts"
import { byDue, emptyWork, resortWork, sortWork, tightestPaceUs, type Work } from "./work.ts"

const ids = (requests: readonly LiveRequest[]) => requests.map(({ id }) => id)

/** A request that is due at this time; `decoding` ones have a token and owe one. */
function requestOf(id: number, dueUs: number, decoding: boolean, tier: "slo" | "bestEffort" = "slo") {
  const request = liveOf(id, { tier })
  if (decoding) Object.assign(request, { output: 1, computed: 100 })
  return Object.assign(request, { dueUs })
}

/** By arrival. */
const all = () => [
  requestOf(1, 50, true),
  requestOf(2, 40, false),
  requestOf(3, 30, true, "bestEffort"),
  requestOf(4, 20, true),
  requestOf(5, 10, false),
  requestOf(6, 5, false, "bestEffort"),
]

const listed = ({ decodes, prefills, bestEffort, byValue, hopeful }: Work) => ({
  decodes: ids(decodes),
  prefills: ids(prefills),
  bestEffort: ids(bestEffort),
  byValue: ids(byValue),
  hopeful: ids(hopeful),
})

test("SLO requests by due time, the others by arrival; without an SLO is of least value", () => {
  expect(listed(sortWork(all(), emptyWork()))).toEqual({
    decodes: [4, 1],
    prefills: [5, 2],
    bestEffort: [3, 6],
    byValue: [1, 2, 4, 5, 3, 6],
    hopeful: [],
  })
})

test("a preempted request owes all of its tokens again: no decode", () => {
  const request = requestOf(1, 50, true)
  request.computed = 0
  expect(listed(sortWork([request], emptyWork()))).toMatchObject({ decodes: [], prefills: [1] })
})

test("lists shrink and grow with what is live, whatever they held before", () => {
  const work = emptyWork()
  const requests = all()
  sortWork(requests, work)
  for (const at of [0, 4]) requests[at]!.gone = true
  const left = requests.filter(({ gone }) => !gone)
  expect(listed(sortWork(left, work))).toMatchObject({ decodes: [4], prefills: [2], bestEffort: [3, 6] })
  Object.assign(requests[1]!, { output: 1, computed: 100 })
  expect(listed(sortWork(left, work))).toMatchObject({ decodes: [4, 2], prefills: [], byValue: [2, 4, 3, 6] })
  // One decode ended as another began.
  requests[3]!.gone = true
  const last = [requests[1]!, requestOf(7, 1, true)]
  expect(listed(sortWork(last, work))).toMatchObject({ decodes: [7, 2], bestEffort: [], byValue: [2, 7] })
})

test("a decode that went on is where its new due time puts it", () => {
  const work = emptyWork()
  const requests = all()
  sortWork(requests, work)
  requests[3]!.dueUs = 60
  expect(listed(sortWork(requests, work)).decodes).toEqual([1, 4])
})

test("a decode that was demoted is no SLO decode any more", () => {
  const work = emptyWork()
  const requests = all()
  sortWork(requests, work)
  requests[0]!.tier = "bestEffort"
  expect(listed(sortWork(requests, work))).toMatchObject({ decodes: [4], bestEffort: [1, 3, 6] })
})

test("after changes of tier what is hopeful stays so, and decodes are listed anew where they changed", () => {
  const work = emptyWork()
  const requests = all()
  sortWork(requests, work)
  work.hopeful.push(requests[5]!)
  requests[1]!.tier = "bestEffort"
  resortWork(requests, work, false)
  expect(listed(work)).toMatchObject({ decodes: [4, 1], prefills: [5], bestEffort: [2, 3, 6], hopeful: [6] })
  requests[2]!.tier = "slo"
  resortWork(requests, work, true)
  expect(listed(work)).toMatchObject({ decodes: [4, 3, 1], bestEffort: [2, 6], hopeful: [6] })
  expect(listed(sortWork(requests, work)).hopeful).toEqual([])
})

test("due times that are equal are in order of arrival", () => {
  const [first, second] = [requestOf(1, 10, false), requestOf(2, 10, false)]
  expect([second, first, requestOf(3, 9, false)].sort(byDue).map(({ id }) => id)).toEqual([3, 1, 2])
})

test("what nothing was put into is empty, and asks for no share of the KV", () => {
  const work = emptyWork()
  expect(listed(work)).toEqual({ decodes: [], prefills: [], bestEffort: [], byValue: [], hopeful: [] })
  expect([work.overdue, work.yielding, work.exact]).toEqual([[], [], false])
  expect(work.forecastSpareKv(null as never)).toBe(Infinity)
})

test("the tightest pace is the smallest time per token, and endless where nothing decodes", () => {
  const paced = (tpotUs: number) => {
    const { slo } = liveOf(1).spec
    return liveOf(1, { slo: { ...slo, tpotUs } })
  }
  expect(tightestPaceUs([paced(70_000), paced(30_000), paced(50_000)])).toBe(30_000)
  expect(tightestPaceUs([])).toBe(Infinity)
})

test("many requests are sorted as few are", () => {
  const random = new Random("due")
  for (const count of [2, 255, 256, 257, 700, 100]) {
    const all = Array.from({ length: count }, (_, id) => requestOf(id, random.integer(0, 100), false))
    const expected = [...all].sort(byDue)
    all.reverse()
    sortByDue(all)
    expect(ids(all)).toEqual(ids(expected))
  }
})
