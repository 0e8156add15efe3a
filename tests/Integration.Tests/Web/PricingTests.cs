using Microsoft.Extensions.DependencyInjection;
using Tensormesh.Billing;
using Tensormesh.Web;

namespace Tensormesh.Integration.Tests.Web;

/// <summary>Prices are one set for the whole database, so that this test has a server of its own.</summary>
public sealed class PricingTests(WebServer server) : IClassFixture<WebServer>
{
    private readonly WebServer server = server;

    [Fact]
    public async Task Gpu_prices_are_listed_by_type_and_filtered_as_asked()
    {
        var customer = server.As(await server.OpenAccountAsync());
        const string path = "/v1/billing/gpu-pricing";
        (await customer.GetAsync(path)).IsExactly("""{"pricing":[]}""");

        await server.Services.GetRequiredService<Prices>().PublishAsync(
            "standard",
            new Dictionary<GpuProduct, Money>
            {
                [new GpuProduct("NVIDIA-L40S")] = Money.Parse("1.10"),
                [new GpuProduct("NVIDIA-H100-80GB-HBM3")] = Money.Parse("2.50"),
            },
            [],
            TimeProvider.System.GetUtcNow(),
            CancellationToken.None);
        const string h100 = """{"gpuType":"GPU_TYPE_H100","cloudProvider":"CLOUD_PROVIDER_ONPREM","hourlyRate":{"currencyCode":"USD","units":"2","nanos":500000000},"isActive":true,"gpuProduct":"NVIDIA-H100-80GB-HBM3"}""";
        const string l40s = """{"gpuType":"GPU_TYPE_L40S","cloudProvider":"CLOUD_PROVIDER_ONPREM","hourlyRate":{"currencyCode":"USD","units":"1","nanos":100000000},"isActive":true,"gpuProduct":"NVIDIA-L40S"}""";
        (await customer.GetAsync(path)).IsExactly($$"""{"pricing":[{{h100}},{{l40s}}]}""");
        (await customer.GetAsync($"{path}?cloudProvider=CLOUD_PROVIDER_UNSPECIFIED&gpuType=GPU_TYPE_UNSPECIFIED&activeOnly=true")).IsExactly($$"""{"pricing":[{{h100}},{{l40s}}]}""");
        (await customer.GetAsync($"{path}?gpuType=GPU_TYPE_H100&activeOnly=false")).IsExactly($$"""{"pricing":[{{h100}}]}""");
        (await customer.GetAsync($"{path}?gpuType=GPU_TYPE_B200")).IsExactly("""{"pricing":[]}""");
        (await customer.GetAsync($"{path}?cloudProvider=CLOUD_PROVIDER_NEBIUS")).IsExactly("""{"pricing":[]}""");
    }

    [Theory]
    [InlineData("NVIDIA-H100-80GB-HBM3", "GPU_TYPE_H100")]
    [InlineData("NVIDIA-A100-SXM4-80GB", "GPU_TYPE_A100")]
    [InlineData("NVIDIA-H200", "GPU_TYPE_H200")]
    [InlineData("NVIDIA-B200", "GPU_TYPE_B200")]
    [InlineData("NVIDIA-L40S", "GPU_TYPE_L40S")]
    [InlineData("NVIDIA-RTX-A6000", "GPU_TYPE_A6000")]
    [InlineData("Tesla-T4", "GPU_TYPE_T4")]
    [InlineData("NVIDIA-GeForce-RTX-4090", "GPU_TYPE_GEFORCE_RTX_4090")]
    public void A_product_of_the_node_labels_has_a_type_of_the_public_API(string product, string type) =>
        Assert.Equal(type, GpuTypes.TypeOf(new GpuProduct(product)));
}
