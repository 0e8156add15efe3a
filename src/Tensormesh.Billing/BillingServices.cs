using Microsoft.Extensions.DependencyInjection;

namespace Tensormesh.Billing;

/// <summary>The only registration file.</summary>
public static class BillingServices
{
    /// <summary>
    /// Registers the data source (pooled, bounded), every service of this project, the sandbox payment provider and TimeProvider.System where none is registered.
    /// </summary>
    public static IServiceCollection AddBilling(this IServiceCollection services, string connectionString) => throw new NotImplementedException();
}
