using System.Net;
using System.Net.Http.Headers;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Tensormesh.Resources;

namespace Tensormesh.Agent.Cluster;

/// <summary>The API server answered, and not with success.</summary>
internal sealed class ApiServerRefusal(HttpStatusCode status, string content) : Exception($"{(int)status} {content}")
{
    public HttpStatusCode Status => status;
}

/// <summary>
/// The little of the Kubernetes API that an agent may use: it reads an object, and applies what it owns of one. Every shape is known when the
/// agent is compiled, so that it can be compiled ahead of time.
/// </summary>
internal sealed class ApiServer(HttpClient http) : IDisposable
{
    /// <param name="path">Below the server's address, such as <c>api/v1/nodes/gpu-a</c>.</param>
    /// <exception cref="ApiServerRefusal">Any status that is not success.</exception>
    /// <exception cref="HttpRequestException">No answer.</exception>
    public async Task<T> ReadAsync<T>(string path, JsonTypeInfo<T> shape, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(HttpMethod.Get, path);
        using var answer = await SendAsync(request, cancellation).ConfigureAwait(false);
        using var body = await answer.Content.ReadAsStreamAsync(cancellation).ConfigureAwait(false);
        return await JsonSerializer.DeserializeAsync(body, shape, cancellation).ConfigureAwait(false) ?? throw new JsonException($"{path} is null");
    }

    /// <summary>Server-side apply as the agent's field manager.</summary>
    /// <param name="force">False: what another manager wrote is a conflict, and stays.</param>
    /// <inheritdoc cref="ReadAsync"/>
    public async Task ApplyAsync<T>(string path, T content, JsonTypeInfo<T> shape, bool force, CancellationToken cancellation)
    {
        var body = new ByteArrayContent(JsonSerializer.SerializeToUtf8Bytes(content, shape));
        // JSON is YAML, and this is the name by which every API server knows server-side apply.
        body.Headers.ContentType = new MediaTypeHeaderValue("application/apply-patch+yaml");
        using var request = new HttpRequestMessage(
            HttpMethod.Patch, $"{path}?fieldManager={WellKnown.AgentFieldManager}&force={(force ? "true" : "false")}")
        { Content = body };
        using var answer = await SendAsync(request, cancellation).ConfigureAwait(false);
    }

    private async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellation)
    {
        request.Headers.Accept.Add(new MediaTypeWithQualityHeaderValue("application/json"));
        var answer = await http.SendAsync(request, cancellation).ConfigureAwait(false);
        if (answer.IsSuccessStatusCode) return answer;
        using (answer)
        {
            throw new ApiServerRefusal(answer.StatusCode, await answer.Content.ReadAsStringAsync(cancellation).ConfigureAwait(false));
        }
    }

    public void Dispose() => http.Dispose();
}
