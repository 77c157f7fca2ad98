/** The suite of all hosts over one in this process. */

import { hostSuite, SUITE_MAX_QUEUE } from "./host.suite.ts"
import { inProcessHost } from "./host-testing.ts"

hostSuite("in this process", async () => ({
  host: inProcessHost({ maxQueue: SUITE_MAX_QUEUE }),
  close: async () => {},
}))
