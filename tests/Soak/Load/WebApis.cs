using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Tensormesh.TestKit;

namespace Tensormesh.Soak;

/// <summary>The Web APIs as a load balancer would offer them: each request goes to the next.</summary>
internal sealed class WebApis(Installation product, IReadOnlyList<Uri> addresses, Tally tally) : IDisposable
{
    private readonly HttpClient http = new(new SocketsHttpHandler { PooledConnectionLifetime = TimeSpan.FromMinutes(2) }) { Timeout = TimeSpan.FromSeconds(20) };
    private readonly string admin = product.AdminToken;
    private int turn;

    /// <returns>Null: nobody answered, or not now.</returns>
    public async Task<(HttpStatusCode Status, JsonElement Body)?> SendAsync(
        HttpMethod method, string path, string token, string? json, string? key, CancellationToken cancellation, string contentType = "application/json")
    {
        var address = addresses[(int)((uint)Interlocked.Increment(ref turn) % addresses.Count)];
        using var request = new HttpRequestMessage(method, new Uri(address, path));
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
        if (json is not null) request.Content = new StringContent(json, Encoding.UTF8, contentType);
        if (key is not null) request.Headers.TryAddWithoutValidation("Idempotency-Key", key);
        using var response = await http.SendAsync(request, cancellation);
        var text = await response.Content.ReadAsStringAsync(cancellation);
        // Whatever breaks, the answer says what: a bare 500 is an error that nobody thought of.
        if (response.StatusCode == HttpStatusCode.InternalServerError) tally.Find(new(FindingKind.Wrong, $"{method} {path.Split('?')[0]} was answered with 500: {text}"));
        if (response.StatusCode is HttpStatusCode.InternalServerError or HttpStatusCode.ServiceUnavailable or HttpStatusCode.BadGateway or HttpStatusCode.TooManyRequests or HttpStatusCode.Conflict)
        {
            return null;
        }

        return (response.StatusCode, response.Content.Headers.ContentType?.MediaType?.EndsWith("json", StringComparison.Ordinal) == true ? JsonElement.Parse(text) : default);
    }

    public Task<(HttpStatusCode Status, JsonElement Body)?> SendUsageAsync(string batch, CancellationToken cancellation)
        => SendAsync(HttpMethod.Post, "/v1/usage/events", admin, batch, null, cancellation, "application/cloudevents-batch+json");

    public void Dispose() => http.Dispose();
}
