// The seed document's Node example, with npm's `eventsource`: only the address comes from outside. It ends by itself when
// the events that the test waits for have come.
import { EventSource } from 'eventsource';

const [url, last, count] = process.argv.slice(2);
let left = Number(count);

const es = new EventSource(url);

es.onmessage = (event) => {
  console.log('Event:', JSON.stringify(JSON.parse(event.data)));
  if (JSON.parse(event.data).type === last && --left === 0) {
    console.log('State:', es.readyState);
    es.close();
  }
};

es.onerror = (error) => {
  console.error('Error:', error);
};
