// Fetches a page and tells what this end of the connection sees of it.
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.SocketAddress;
import java.nio.charset.StandardCharsets;

class Client {
    public static void main(String[] arguments) {
        try (Socket socket = new Socket()) {
            socket.setSoTimeout(5000);
            socket.connect(new InetSocketAddress(arguments[0], Integer.parseInt(arguments[1])), 5000);
            socket.getOutputStream().write("GET / HTTP/1.1\r\nHost: page\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
            String page = new String(socket.getInputStream().readAllBytes(), StandardCharsets.US_ASCII);
            String answer = page.replaceFirst("(?s)^.*?\r\n\r\n", "");
            System.out.printf("{\"page\": {\"local\": \"%s\", \"peer\": \"%s\", \"answer\": \"%s\"}}%n",
                show(socket.getLocalSocketAddress()), show(socket.getRemoteSocketAddress()), answer);
        } catch (IOException error) {
            System.out.printf("{\"error\": \"%s: %s\"}%n", error.getClass().getSimpleName(), error.getMessage());
        }
    }

    static String show(SocketAddress address) {
        InetSocketAddress internet = (InetSocketAddress) address;
        String host = internet.getAddress().getHostAddress();
        return (host.contains(":") ? "[" + host + "]" : host) + ":" + internet.getPort();
    }
}
