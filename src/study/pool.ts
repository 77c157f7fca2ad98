/** Runs tasks on worker threads, as many as the machine has cores, and keeps each result in a file, so that an
 * interrupted study goes on where it stopped. Results come back in the order of the tasks. */
import { createHash } from "node:crypto"
import { mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import { join } from "node:path"
import { Worker } from "node:worker_threads"
import { moduleBeside } from "../beside.ts"
import { UserError } from "../errors.ts"
import { type Result, runTask, type Task, workOf } from "./tasks.ts"

export interface PoolOptions {
  /** Threads; 0 runs everything in this one. Default: one a core. */
  workers?: number
  /** Folder for the results of single tasks. */
  cache?: string
  onEvent?: (event: PoolEvent) => void
}

export type PoolEvent =
  /** Before all others: about how much each task is to compute; those that are remembered say so at once. */
  | { type: "begin"; work: number[] }
  | { type: "cached" | "done"; index: number }
  | { type: "progress"; index: number; text: string }

/** From a worker. */
export type Message =
  | { type: "progress"; text: string }
  | { type: "done"; result: Result }
  | { type: "failed"; message: string; user: boolean }

export async function runTasks<T extends Task>(
  tasks: readonly T[],
  options: PoolOptions = {},
): Promise<Result<T>[]> {
  const { cache, onEvent } = options
  if (cache !== undefined) mkdirSync(cache, { recursive: true })
  const results = new Array<Result<T>>(tasks.length)
  const todo: number[] = []
  const work = tasks.map(workOf)
  onEvent?.({ type: "begin", work })
  for (const [index, task] of tasks.entries()) {
    const found = cache === undefined ? null : recall<T>(join(cache, fileOf(task)))
    if (found === null) todo.push(index)
    else {
      results[index] = found
      onEvent?.({ type: "cached", index })
    }
  }
  // The longest first: the threads end together.
  todo.sort((a, b) => work[b]! - work[a]!)
  const finish = (index: number, result: Result<T>) => {
    results[index] = result
    if (cache !== undefined) keep(join(cache, fileOf(tasks[index]!)), result)
    onEvent?.({ type: "done", index })
  }
  const threads = Math.min(options.workers ?? availableParallelism(), todo.length)
  if (threads === 0) {
    for (const index of todo) {
      const progress = (text: string) => onEvent?.({ type: "progress", index, text })
      finish(index, runTask(tasks[index]!, progress))
    }
    return results
  }
  let next = 0
  const take = () => (next < todo.length ? todo[next++]! : null)
  const lanes = Array.from({ length: threads }, () => lane(tasks, take, finish, onEvent))
  await Promise.all(lanes)
  return results
}

/** One worker, fed until nothing is left. */
async function lane<T extends Task>(
  tasks: readonly T[],
  take: () => number | null,
  finish: (index: number, result: Result<T>) => void,
  onEvent: PoolOptions["onEvent"],
): Promise<void> {
  const worker = new Worker(moduleBeside(import.meta.url, "worker"))
  try {
    for (let index = take(); index !== null; index = take()) {
      const own = index
      const result = await ask<T>(worker, tasks[own]!, (text) =>
        onEvent?.({ type: "progress", index: own, text }),
      )
      finish(own, result)
    }
  } finally {
    await worker.terminate()
  }
}

function ask<T extends Task>(
  worker: Worker,
  task: T,
  onProgress: (text: string) => void,
): Promise<Result<T>> {
  return new Promise((resolve, reject) => {
    const onMessage = (message: Message) => {
      if (message.type === "progress") return onProgress(message.text)
      over()
      if (message.type === "done") resolve(message.result as Result<T>)
      else reject(message.user ? new UserError(message.message) : new Error(message.message))
    }
    const onError = (error: unknown) => {
      over()
      reject(error)
    }
    const over = () => worker.off("message", onMessage).off("error", onError)
    worker.on("message", onMessage).on("error", onError)
    worker.postMessage(task)
  })
}

let codeHash: string | null = null

/** Name of a task's result: changes with the task and with the code that computes it. */
function fileOf(task: Task): string {
  codeHash ??= hashOfCode()
  const hash = createHash("sha256").update(codeHash).update(JSON.stringify(task))
  for (const path of Object.values(task.base.traces)) hash.update(hashOfFile(path))
  return `${hash.digest("hex").slice(0, 24)}.json`
}

const fileHashes = new Map<string, string>()

/** A trace that has changed makes other results; one that cannot be read is the task's to report. */
function hashOfFile(path: string): string {
  let hash = fileHashes.get(path)
  if (hash === undefined) {
    try {
      hash = createHash("sha256").update(readFileSync(path)).digest("hex")
    } catch {
      hash = "unreadable"
    }
    fileHashes.set(path, hash)
  }
  return hash
}

/** Everything that a simulated result depends on. */
function hashOfCode(): string {
  const hash = createHash("sha256")
  hash.update(readFileSync(moduleBeside(import.meta.url, "../random")))
  for (const part of ["config", "core", "router", "sim", "load", "study"]) {
    const folder = new URL(`../${part}/`, import.meta.url)
    let files: string[] = []
    try {
      files = readdirSync(folder, { recursive: true, encoding: "utf8" }).sort()
    } catch {
      continue
    }
    for (const file of files) {
      if (/(?<!\.test|\.d)\.[jt]s$/.test(file)) hash.update(file).update(readFileSync(new URL(file, folder)))
    }
  }
  return hash.digest("hex")
}

function recall<T extends Task>(path: string): Result<T> | null {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as Result<T>
  } catch {
    return null
  }
}

function keep(path: string, result: unknown): void {
  writeFileSync(`${path}.part`, JSON.stringify(result))
  renameSync(`${path}.part`, path)
}
