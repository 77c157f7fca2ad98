/** Why a program that was started has ended, out of what it said: the error under all those that follow from it. */
import { saidBy } from "./child-log.ts"

/** The line under which a traceback, or argparse's usage, says what is wrong. */
const ERROR = /^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception): (.+)$|^(?:[\w.-]+(?: \w+)?: )?error: (.+)$/
/** Those that only say that another one came before. */
const FOLLOWS = /see (?:the )?(?:root cause|stack trace)|engine core initialization failed/i
/** pydantic's: what is wrong is on the next line. */
const COUNTS = /^\d+ validation errors? for /
const LONGEST = 500

export class Failure {
  #reason: string | null = null
  #isBelow = false

  /** null: it has named none. */
  get reason(): string | null {
    return this.#reason
  }

  /** A line, as it comes. Whether it names one. */
  take(line: string): boolean {
    const said = saidBy(line)
    if (said === null) return false
    if (this.#isBelow) {
      this.#isBelow = false
      this.#reason = said.replace(/^Value error, /, "").slice(0, LONGEST)
      return true
    }
    const found = ERROR.exec(said)
    const text = found?.[1] ?? found?.[2]
    if (text === undefined || FOLLOWS.test(text)) return false
    this.#isBelow = COUNTS.test(text)
    this.#reason = text.slice(0, LONGEST)
    return true
  }
}
