/** Addresses of other gateways, and their secret. */
import { expect, test } from "vitest"
import { parsePeer, readPeerSecret } from "./peers.ts"

test.each([
  ["gw-2:9000", { host: "gw-2", port: 9000 }],
  ["gw-2", { host: "gw-2", port: 8090 }],
  ["peers.serving.svc:8090", { host: "peers.serving.svc", port: 8090 }],
  [" 10.0.0.7 ", { host: "10.0.0.7", port: 8090 }],
  ["[fd00::7]:9000", { host: "fd00::7", port: 9000 }],
  ["[fd00::7]", { host: "fd00::7", port: 8090 }],
  ["fd00::7", { host: "fd00::7", port: 8090 }],
])("%s", (text, address) => {
  expect(parsePeer(text, "--peer")).toEqual(address)
})

test.each([
  "",
  "http://gw-2:8090",
  "gw-2:",
  "gw-2:0",
  "gw-2:70000",
  "gw 2",
  "gw-2:80:90",
  "[gw-2]:80",
  "a@b",
  "gw-2/x",
])("%j is none", (text) => {
  expect(() => parsePeer(text, "--peer")).toThrow(
    /--peer: .* is no address of a gateway; it must be host:port/,
  )
})

test("a secret is where it is said to be, and long enough; it is not shown", () => {
  const environment = { LONG: "0123456789abcdef", SHORT: "0123456789abcde" }
  expect(readPeerSecret("env:LONG", environment)).toBe(environment.LONG)
  expect(() => readPeerSecret("env:SHORT", environment)).toThrow(/what env:SHORT has is shorter than 16/)
  expect(() => readPeerSecret("env:SHORT", environment)).not.toThrow(/abcde/)
  expect(() => readPeerSecret("env:NONE", environment)).toThrow(/NONE is not set/)
})
