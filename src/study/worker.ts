/** A worker thread of pool.ts: one task at a time. */
import { parentPort } from "node:worker_threads"
import { UserError } from "../errors.ts"
import type { Message } from "./pool.ts"
import { runTask, type Task } from "./tasks.ts"

const port = parentPort!
const post = (message: Message) => port.postMessage(message)

port.on("message", (task: Task) => {
  try {
    post({ type: "done", result: runTask(task, (text) => post({ type: "progress", text })) })
  } catch (error) {
    const user = error instanceof UserError
    post({ type: "failed", user, message: user ? error.message : ((error as Error).stack ?? String(error)) })
  }
})
