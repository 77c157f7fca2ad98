/** The path of a planner: one has it, of this user; what is in the way is said. */
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { createServer, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, expect, test } from "vitest"
import { encodeFrame } from "../wire/frames.ts"
import { PLANNER_VERSION, plannerHello } from "../wire/planner/messages.ts"
import { listenAt } from "./listen.ts"

const folder = mkdtempSync(join(tmpdir(), "listen-"))
const closers: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})
let paths = 0
const fresh = () => join(folder, `${++paths}.sock`)

/** As a planner of this version. */
const greets = (socket: Socket) => {
  socket.on("error", () => {})
  socket.write(encodeFrame(plannerHello()))
}
async function open(path: string, onConnection = greets) {
  const socket = await listenAt(path, onConnection)
  let over = false
  const close = async () => {
    if (!over) await socket.close()
    over = true
  }
  closers.push(close)
  return close
}

test("only its own user may connect, and the file goes with it", async () => {
  const path = fresh()
  const close = await open(path)
  expect(lstatSync(path).mode & 0o777).toBe(0o600)
  await close()
  expect(existsSync(path)).toBe(false)
  await (await open(path))()
})

/** As after kill -9: the file stays, and nothing listens. */
async function dies(path: string): Promise<void> {
  const left = createServer().listen(path)
  await new Promise((listening) => left.once("listening", listening))
  const kept = `${path}.kept`
  renameSync(path, kept)
  await new Promise((closed) => left.close(closed))
  renameSync(kept, path)
}

test("what a dead planner left is taken over", async () => {
  const path = fresh()
  await dies(path)
  expect(lstatSync(path).isSocket()).toBe(true)
  await open(path)
})

// Only root can give a file away.
test.runIf(process.getuid?.() === 0)("what another user's planner left is not", async () => {
  const path = fresh()
  await dies(path)
  chownSync(path, 65_534, 65_534)
  await expect(listenAt(path, greets)).rejects.toThrow("the socket there is of another user (65534)")
  expect(existsSync(path)).toBe(true)
})

test("two that start at one moment: one of them has it", async () => {
  const path = fresh()
  const all = await Promise.allSettled([open(path), open(path), open(path)])
  expect(all.filter(({ status }) => status === "fulfilled")).toHaveLength(1)
  for (const one of all) if (one.status === "rejected") expect(one.reason.message).toMatch(/planner is/)
})

const refused: [string, (path: string) => void | Promise<void>, RegExp][] = [
  ["a planner at work", async (path) => void (await open(path)), /a planner is at work there; stop it/],
  [
    "a planner of another version",
    async (path) =>
      void (await open(path, (socket) => {
        socket.on("error", () => {})
        socket.write(encodeFrame({ ...plannerHello(), version: PLANNER_VERSION + 1 }))
      })),
    /a planner of another version \(3\) is at work there/,
  ],
  [
    "another program",
    async (path) =>
      void (await open(
        path,
        (socket) => void socket.on("error", () => {}).write("HTTP/1.1 400\r\n\r\n\r\n"),
      )),
    /another program listens there/,
  ],
  [
    "a program that says nothing",
    async (path) => void (await open(path, (socket) => void socket.on("error", () => {}))),
    /another program listens there/,
  ],
  ["a file", (path) => writeFileSync(path, "mine"), /a file that is no socket/],
  ["a folder", (path) => mkdirSync(path), /a file that is no socket/],
  ["a link", (path) => symlinkSync("/dev/null", path), /a file that is no socket/],
]
test.each(refused)("%s is not disturbed", async (_, put, says) => {
  const path = fresh()
  await put(path)
  const before = lstatSync(path).ino
  await expect(listenAt(path, greets)).rejects.toThrow(says)
  await expect(listenAt(path, greets)).rejects.toThrow(`--socket ${path}: `)
  expect(lstatSync(path).ino).toBe(before)
})

test("a folder that is not there, and one that nothing can be made in", async () => {
  await expect(listenAt(join(folder, "none", "a.sock"), greets)).rejects.toThrow(/no folder .*none; make it/)
  await expect(listenAt(join(folder, "x".repeat(120)), greets)).rejects.toThrow(/longer than 107 bytes/)
  const shut = join(folder, "shut")
  mkdirSync(shut)
  chmodSync(shut, 0o500)
  // Root may write anywhere.
  if (process.getuid?.() !== 0)
    await expect(listenAt(join(shut, "a.sock"), greets)).rejects.toThrow(/nothing can be made/)
})
