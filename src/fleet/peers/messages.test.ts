/** The frames of what gateways say to each other: those of one version stay as they are. */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { resolve } from "node:path"
import { expect, test } from "vitest"
import { encodeFrame, FrameReader } from "../../wire/frames.ts"
import { PLACEMENTS } from "../told-placements.ts"
import { greetingOf, PEER_VERSION, type PeerMessage, readPeerMessage } from "./messages.ts"
import { LOAD_WORDS, WHOLE_WORDS } from "./testing.ts"
import { incoming, incomingWhole } from "./words.ts"

const SAMPLES: Record<string, PeerMessage> = {
  hello: greetingOf("0123456789abcdef0123456789abcdef").hello() as PeerMessage,
  refused: { type: "refused", why: "another connection takes its place", moves: true },
  told: {
    ...{ type: "told", from: 2, clockUs: 123_456_789_012 },
    words: [
      { topic: "load of 10.0.0.7:8000", word: LOAD_WORDS },
      {
        topic: PLACEMENTS,
        word: [[{ session: 2 ** 45, promptTokens: 100, prefix: [2 ** 50, 3] }, "10.0.0.7:8000"]],
      },
    ],
  },
  begins: { type: "begins", turn: 3, processes: [0, 2, 17] },
  whole: {
    ...{ type: "whole", from: 17, clockUs: 123_456_789_012, more: true },
    words: [
      { topic: "load of 10.0.0.7:8000", word: WHOLE_WORDS },
      {
        topic: PLACEMENTS,
        word: [[{ session: 2 ** 45, promptTokens: 100, prefix: [2 ** 50, 3] }, "10.0.0.7:8000", 5e6]],
      },
    ],
  },
  "whole: nothing": { type: "whole", from: 2, clockUs: 1, words: [], more: false },
  again: { type: "again" },
  left: { type: "left", from: 2 },
  alive: { type: "alive" },
  said: {
    type: "said",
    words: [{ topic: "rates: taken", word: { key: "a", what: "tokens", count: -3, limit: 60, slots: 2 } }],
  },
  ask: { type: "ask", id: 1, what: "responses: get", asked: { tenant: "a", id: "resp_1" } },
  answered: { type: "answered", id: 1, json: '{"id":"resp_1"}' },
  "answered: nothing": { type: "answered", id: 1, json: null },
}

/** Hexadecimal. A new message is added by running with GOLDEN=write; what is there must not change without a new version. */
const file = resolve(import.meta.dirname, `golden/peers-${PEER_VERSION}.json`)
if (process.env.GOLDEN === "write") {
  const frames = Object.entries(SAMPLES).map(([name, message]) => [
    name,
    encodeFrame(message).toString("hex"),
  ])
  writeFileSync(file, `${JSON.stringify(Object.fromEntries(frames), null, 2)}\n`)
}
const golden: Record<string, string> = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {}

test("there is a golden frame of every sample", () => {
  expect(Object.keys(golden)).toEqual(Object.keys(SAMPLES))
})

test.each(Object.entries(SAMPLES))(
  "%s is the frame that it was, and reads as what it says",
  (name, message) => {
    expect(encodeFrame(message).toString("hex")).toBe(golden[name])
    const [decoded] = new FrameReader().push(Buffer.from(golden[name]!, "hex"))
    expect(readPeerMessage(decoded)).toEqual(message)
  },
)

test("what is told in a frame is heard as it was told", () => {
  const [decoded] = new FrameReader().push(Buffer.from(golden.told!, "hex"))
  const message = readPeerMessage(decoded)
  const { words } = SAMPLES.told as Extract<PeerMessage, { type: "told" }>
  expect(message.type === "told" && incoming(message.words as typeof words, 0, 2)).toEqual(words)
})

test("what a process has is heard as it was told", () => {
  const [decoded] = new FrameReader().push(Buffer.from(golden.whole!, "hex"))
  const message = readPeerMessage(decoded)
  const { words } = SAMPLES.whole as Extract<PeerMessage, { type: "whole" }>
  expect(message.type === "whole" && incomingWhole(message.words as typeof words, 0, 2)).toEqual(words)
})

test("a hello of another protocol, or version, is read far enough to be refused", () => {
  const { refusalOf } = greetingOf("a")
  for (const hello of [
    { type: "hello", protocol: "slos-serve", version: 3 },
    { type: "hello", protocol: "slos-serve-peers", version: PEER_VERSION + 1, gateway: 7, more: [] },
  ]) {
    const read = readPeerMessage(hello) as Extract<PeerMessage, { type: "hello" }>
    expect(refusalOf(read)).toMatch(/one end speaks .*, the other/)
  }
})
