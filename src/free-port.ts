/** Ports for what is to listen there later, in another process or on another day of this one. */
import { readFileSync } from "node:fs"
import { createServer } from "node:net"

const LOWEST = 20_000
/** Where systems say nothing else, they give ports from here on. */
const USUAL_GIVEN = 32_768
/** Of so many, at random, one is free. */
const MOST_TRIES = 100

/** The first port that this system gives to connections, and to what listens and does not say where: it may be gone a moment after it
 * was seen to be free. */
function firstGiven(): number {
  try {
    return Number.parseInt(readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8"), 10)
  } catch {
    return USUAL_GIVEN
  }
}

/** One of this machine that nothing listens on, and that nothing comes to have by chance. */
export async function freePort(): Promise<number> {
  const room = firstGiven() - LOWEST
  for (let tries = 0; room > 0 && tries < MOST_TRIES; tries++) {
    const port = await listened(LOWEST + Math.floor(Math.random() * room))
    if (port !== null) return port
  }
  const port = await listened(0)
  if (port === null) throw new Error("no port of 127.0.0.1 can be listened on")
  return port
}

export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>()
  while (ports.size < count) ports.add(await freePort())
  return [...ports]
}

/** Where it was listened for a moment; null: it cannot be. */
function listened(port: number): Promise<number | null> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once("error", () => resolve(null))
    server.listen(port, "127.0.0.1", () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
}
