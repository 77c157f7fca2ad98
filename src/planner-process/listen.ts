/** The planner's Unix socket: one planner at a path, of one user. A socket that a dead planner left is taken over; all else that
 * is in the way is said in one line. */
import { createHash } from "node:crypto"
import { existsSync, lstatSync, type Stats, unlinkSync } from "node:fs"
import { createConnection, createServer, type Server, type Socket } from "node:net"
import { dirname, resolve } from "node:path"
import { UserError } from "../errors.ts"
import { FrameReader } from "../wire/frames.ts"
import { PLANNER_PROTOCOL, PLANNER_VERSION, readToPlugin } from "../wire/planner/messages.ts"

/** What listens there has so long to say hello. */
const HELLO_MS = 2000
/** The kernel takes no longer path of a socket. */
const MOST_PATH_BYTES = 107
/** Only its own user may connect. */
const MASK = 0o177

export interface PlannerSocket {
  readonly path: string
  close(): Promise<void>
}

/** Throws UserError where the path cannot be had. */
export async function listenAt(path: string, onConnection: (socket: Socket) => void): Promise<PlannerSocket> {
  const full = resolve(path)
  if (Buffer.byteLength(full) > MOST_PATH_BYTES)
    throw wrong(path, `it is longer than ${MOST_PATH_BYTES} bytes; choose a shorter path`)
  if (!existsSync(dirname(full)))
    throw wrong(path, `there is no folder ${dirname(full)}; make it, or choose another path`)
  const claim = await claimOf(full)
  try {
    await makeWay(full)
    const server = createServer(onConnection)
    await listen(server, full)
    return {
      path: full,
      // The file goes with the server.
      close: async () => {
        await closed(server)
        await claim()
      },
    }
  } catch (error) {
    await claim()
    throw error
  }
}

/** Two planners that start at one moment would both find a dead one's socket, and the second would unlink the first one's. A name
 * in the kernel, which goes with its process, is had by one of them only. */
async function claimOf(full: string): Promise<() => Promise<void>> {
  if (process.platform !== "linux") return async () => {}
  const server = createServer((socket) => socket.destroy())
  try {
    await listen(server, `\0slos-serve-planner:${createHash("sha256").update(full).digest("hex")}`)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EADDRINUSE") throw await taken(full)
    throw error
  }
  server.unref()
  return () => closed(server)
}

async function makeWay(full: string): Promise<void> {
  const found = statOf(full)
  if (found === null) return
  if (!found.isSocket()) throw wrong(full, "there is a file that is no socket; choose another path")
  if (found.uid !== process.getuid?.())
    throw wrong(full, `the socket there is of another user (${found.uid}); choose another path`)
  if ((await saysHello(full)) !== "dead") throw await taken(full)
  unlinkSync(full)
}

function statOf(full: string): Stats | null {
  try {
    return lstatSync(full)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === "ENOENT") return null
    throw wrong(full, `it cannot be looked at (${code})`)
  }
}

async function taken(full: string): Promise<UserError> {
  const found = await saysHello(full)
  const remedy = "stop it, or choose another path"
  if (found === "dead") return wrong(full, `another planner is being started there; ${remedy}`)
  if (found === "silent") return wrong(full, `another program listens there; ${remedy}`)
  const other = found === PLANNER_VERSION ? "a planner" : `a planner of another version (${found})`
  return wrong(full, `${other} is at work there; ${remedy}`)
}

/** The version of the planner that listens there; `silent`: what listens there is none; `dead`: nothing does. */
function saysHello(full: string): Promise<number | "silent" | "dead"> {
  return new Promise((done) => {
    const socket = createConnection(full)
    const reader = new FrameReader()
    const end = (found: number | "silent" | "dead") => {
      clearTimeout(timer)
      socket.destroy()
      done(found)
    }
    const timer = setTimeout(() => end("silent"), HELLO_MS)
    socket.on("data", (piece: Buffer) => {
      try {
        const [first] = reader.push(piece)
        if (first === undefined) return
        const hello = readToPlugin(first)
        end(hello.type === "hello" && hello.protocol === PLANNER_PROTOCOL ? hello.version : "silent")
      } catch {
        end("silent")
      }
    })
    socket.on("error", ({ code }: NodeJS.ErrnoException) =>
      end(code === "ECONNREFUSED" || code === "ENOENT" ? "dead" : "silent"),
    )
    socket.on("close", () => end("silent"))
  })
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((done, fail) => {
    server.once("error", (error: NodeJS.ErrnoException) => fail(refusalOf(error, path)))
    const before = process.umask(MASK)
    // The socket is made in this very call.
    server.listen(path, done)
    process.umask(before)
  })
}

function refusalOf(error: NodeJS.ErrnoException, path: string): Error {
  if (error.code === "EACCES" || error.code === "EPERM" || error.code === "EROFS")
    return wrong(path, `nothing can be made in ${dirname(path)} (${error.code}); choose another path`)
  return error
}

function wrong(path: string, detail: string): UserError {
  return new UserError(`--socket ${path}: ${detail}`)
}

function closed(server: Server): Promise<void> {
  return new Promise((done) => server.close(() => done()))
}
