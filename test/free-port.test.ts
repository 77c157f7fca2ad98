/** Ports for later. */
import { readFileSync } from "node:fs"
import { createServer } from "node:net"
import { expect, test } from "vitest"
import { freePort, freePorts } from "../src/free-port.ts"

const RANGE = "/proc/sys/net/ipv4/ip_local_port_range"

test("one can be listened on", async () => {
  const port = await freePort()
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject)
    server.listen(port, "127.0.0.1", resolve)
  })
  await new Promise((resolve) => server.close(resolve))
})

test("several are different, and none of those that the system gives away", async () => {
  const ports = await freePorts(20)
  expect(new Set(ports).size).toBe(20)
  const given = process.platform === "linux" ? Number.parseInt(readFileSync(RANGE, "utf8"), 10) : 65_536
  if (given > 21_000) expect(Math.max(...ports)).toBeLessThan(given)
})
