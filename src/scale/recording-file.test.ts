/** A recording that is written and read is the same; what is none is said so in a line. */
import { expect, it } from "vitest"
import { linesOf, parseRecording } from "./recording-file.ts"
import { arrival, poisson, SETUP, SLO } from "./testing.ts"

const text = (arrivals = poisson(() => 2, 5, 40)) =>
  [...linesOf({ recording: { arrivals, sinceUs: 5e6, nowUs: 65e6 }, setup: SETUP, replicas: 3 })].join("")

it("comes back as it was, from its own beginning on", () => {
  const slo = { ...SLO, ttftUs: Infinity, ttftSlowdown: 5 }
  const all = [
    arrival(5, { slo, session: 912_345_678, cachedTokens: 16 }),
    arrival(6, { tier: "bestEffort", session: 912_345_678 }),
    arrival(7, { end: "live", endUs: 0, outputTokens: 0, thinking: true, worth: 2.5, attained: false }),
    arrival(8, { session: 7 }),
  ]
  const { recording, setup, replicas } = parseRecording(text(all), "it")
  expect({ setup, replicas, sinceUs: recording.sinceUs, nowUs: recording.nowUs }).toEqual({
    ...{ setup: SETUP, replicas: 3, sinceUs: 0, nowUs: 60e6 },
  })
  const moved = all.map((one) => ({
    ...one,
    atUs: one.atUs - 5e6,
    endUs: one.endUs === 0 ? 0 : one.endUs - 5e6,
  }))
  // Sessions get numbers of their own: the server's say too much.
  expect(recording.arrivals).toEqual(moved.map((one, i) => ({ ...one, session: [0, 0, -1, 1][i] })))
})

it.each<[string, RegExp]>([
  ["", /^it:1: not JSON/],
  ["{}", /^it:1: arrivals: /],
  [text().replace('"replicas":3', '"replicas":0'), /^it:1: replicas: /],
  [text().replace('"step":50000', '"stap":50000'), /^it:1: setup\.cost\.pieces/],
  [text().replace('"policy":"slos-serve"', '"policy":"fifo"'), /^it:1: setup\.policy: /],
  [`${text()}{"atMs":-1}`, /^it:\d+: atMs: /],
  [`${text()}nonsense`, /^it:\d+: not JSON/],
])("bad input %# is one line with a remedy", (bad, message) => {
  expect(() => parseRecording(bad, "it")).toThrow(message)
  expect(() => parseRecording(bad, "it")).toThrow(/take the recording anew/)
})
