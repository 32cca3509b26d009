// Reads a history with one version of the AI SDK: the messages must be valid, and are converted for a model.
const { version, messages } = JSON.parse(process.argv[2]);
const { convertToModelMessages, validateUIMessages } = await import(`ai-${version}`);

await validateUIMessages?.({ messages }); // 5.0.0 has none
console.log(JSON.stringify({ asked: await convertToModelMessages(messages, { ignoreIncompleteToolCalls: version[0] === "5" }) }));
